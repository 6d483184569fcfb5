// The NBD server's sockets: listens, receives in batches, writes once a loop turn.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "blockdev/allow_list.h"
#include "blockdev/exports.h"
#include "blockdev/nbd_session.h"
#include "blockdev/nbd_tls.h"
#include "core/address.h"
#include "core/metrics/metrics_text.h"
#include "core/net/rate_limit.h"
#include "core/net/turn_flusher.h"
#include "core/runtime/runtime.h"

namespace pstorage {
class File_descriptor;
class Stream_acceptor;
}  // namespace pstorage

namespace pstorage::nbd {

struct Server_options {
  std::vector<std::string> volumes;  // export only these and keep them open; empty: all
  std::size_t connections_max = 256;
  Session_limits session;             // its `tls` is ignored: see below
  std::shared_ptr<Tls_settings> tls;  // null: clients talk in clear
  bool requires_tls = false;          // of TCP clients; on a unix socket it is offered
  Allow_list allow;                   // for TCP clients
};

/// Thread: the runtime's loop.
class Nbd_server final : public Ticker, public Turn_flusher {
 public:
  /// `provider` and `runtime` must outlive the server.
  Nbd_server(Runtime& runtime, Volume_provider& provider, Server_options options);
  ~Nbd_server() override;
  Nbd_server(Nbd_server const&) = delete;
  Nbd_server& operator=(Nbd_server const&) = delete;

  /// Opens the volumes named in the options; `done` hears of the first failure or of success.
  void open_volumes(std::function<void(Outcome<void>)> done);
  /// Serves clients at `at`; returns the address with its real port.
  Outcome<Address> listen(Address const& at);
  /// Serves clients of a listening socket that was handed over (systemd); its file stays.
  Outcome<void> adopt(int listener);
  /// Takes no more clients and requests, answers what is under way, closes the volumes (flushed,
  /// leases given back), then calls `done`.
  void stop(std::function<void()> done);

  /// Adds what was served since the start to `text`, by volume.
  void collect(Metrics_text& text) const;
  /// As Exports::trouble().
  std::string trouble() const { return exports_.trouble(); }

  void on_tick() override;
  void flush_turn() override;

 private:
  class Connection;
  friend class Connection;

  void accept_at(Address const& at, File_descriptor fd);
  void accepted(File_descriptor fd, Address const& at);
  void refuse(std::string const& why, std::string const& peer);
  void mark_dirty(Connection& connection);
  void check_stopped();

  Runtime& runtime_;
  Server_options options_;
  Exports exports_;
  std::vector<std::shared_ptr<Stream_acceptor>> acceptors_;
  std::vector<std::shared_ptr<Connection>> connections_;
  std::vector<std::shared_ptr<Connection>> dirty_;
  std::vector<std::shared_ptr<Connection>> flushing_;
  std::function<void()> stopped_;
  bool stopping_ = false;
  Rate_limit refusals_;
  unsigned ticks_ = 0;
};

}  // namespace pstorage::nbd
