// A small HTTP/1.1 server on the loop of a daemon: metrics, health, the status page.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/address.h"
#include "core/http/request.h"
#include "core/net/rate_limit.h"
#include "core/net/turn_flusher.h"
#include "core/runtime/runtime.h"

namespace pstorage {
class File_descriptor;
class Stream_acceptor;
}  // namespace pstorage

namespace pstorage::http {

struct Answer {
  unsigned status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // more of them
};

/// Whoever answers; may do so later. The answer to a connection that is gone is dropped.
using Respond = std::function<void(Answer)>;
using Handler = std::function<void(Request const& request, Respond respond)>;

struct Server_limits {
  std::size_t connections_max = 64;  // one more: the one that is idle for longest goes
  Duration head_timeout = std::chrono::seconds(10);   // from the first byte to a whole head
  Duration idle_timeout = std::chrono::seconds(60);   // without a request
  Duration write_timeout = std::chrono::seconds(30);  // for a client to take its answer
};

/// One request of a connection is worked on at a time; no bodies, no pipelining beyond what a head
/// may hold. Requests to a loopback address must name a loopback host: pages of other sites in an
/// administrator's browser learn nothing. Thread: the runtime's loop.
class Server final : public Ticker, public Turn_flusher {
 public:
  Server(Runtime& runtime, Handler handler, Server_limits limits = {});
  ~Server() override;
  Server(Server const&) = delete;
  Server& operator=(Server const&) = delete;

  /// Serves at `at` (port 0: any); returns where. Errors: as listen_at().
  Outcome<Address> listen(Address const& at);

  void on_tick() override;
  void flush_turn() override {}

 private:
  class Connection;
  friend class Connection;

  void accepted(File_descriptor fd);

  Runtime& runtime_;
  Handler handler_;
  Server_limits limits_;
  bool is_loopback_ = true;
  std::shared_ptr<Stream_acceptor> acceptor_;
  std::vector<std::shared_ptr<Connection>> connections_;
};

/// Is it 127.x.x.x, ::1, a unix socket or "localhost"?
bool is_loopback(std::string const& host);

}  // namespace pstorage::http
