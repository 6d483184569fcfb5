// core/env/network.h on real sockets: receiving is batched into large blocks, sending is one
// gathered write a connection and loop turn (facts: 4 to 8 times less CPU than a system call a
// message).
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/env/clock.h"
#include "core/env/network.h"
#include "core/log.h"
#include "core/net/handshake.h"
#include "core/net/identity.h"
#include "core/net/psk_tls.h"
#include "core/net/rate_limit.h"
#include "core/net/shared_memory.h"
#include "core/net/turn_flusher.h"

namespace pstorage {

class Socket_connection;
class File_descriptor;
class Event_loop;
class Resolver;
class Stream_acceptor;

struct Network_options {
  Identity identity;
  std::uint32_t protocol = protocol_version;  // another one only in tests
  std::size_t connections_max = 4096;
  std::size_t unauthenticated_max = 128;  // incoming; above it the oldest one is dropped
  Duration handshake_timeout = std::chrono::seconds(5);
  Duration connect_timeout = std::chrono::seconds(3);
  /// A peer that takes nothing while this much waits for it is cut off.
  std::size_t queued_bytes_max = 64u << 20;
  /// Memory for payloads that peers on this host read in place, in whole 64 KiB; 0: they are
  /// copied.
  std::size_t shared_payload_bytes = 0;
};

/// Thread: the loop's. Callbacks to handlers come only from the loop, never from inside a call of
/// theirs.
class Socket_network final : public Network, public Ticker, public Turn_flusher {
 public:
  Socket_network(Event_loop& loop, Network_options options, Clock& clock, Log& log);
  ~Socket_network() override;

  Connection_id connect(Address const& to, Connection_handler& handler) override {
    return connect_as(options_.identity.role, to, handler);
  }
  Connection_id connect_as(Role role, Address const& to, Connection_handler& handler) override;
  Outcome<Address> listen(Address const& at, Connection_handler& handler) override;
  void send(Connection_id connection, Message message) override;
  Slice take_payload(std::size_t bytes) override;
  void close(Connection_id connection) override;
  std::size_t queued_bytes(Connection_id connection) const override;
  void set_turn_hook(Turn_hook* hook) override { turn_hook_ = hook; }

  void on_tick() override;
  void flush_turn() override;
  void run_turn_hook() {
    if (turn_hook_ != nullptr) turn_hook_->on_turn_end();
  }

 private:
  friend class Socket_connection;

  // An id is a counter above the number of a slot: found with one comparison, never reused.
  static constexpr unsigned slot_bits = 20;

  Socket_connection* find(Connection_id id) const;
  Connection_id add(std::shared_ptr<Socket_connection> connection);
  void remove(Connection_id id);
  void mark_dirty(Connection_id id) { dirty_.push_back(id); }
  void accepted(File_descriptor fd, Address const& at, Connection_handler& handler);
  void drop_oldest_unauthenticated();
  void authenticated(Socket_connection& connection);
  void note_refused(std::string const& peer, std::string const& reason);
  Tls_context& tls();

  Event_loop& loop_;
  Network_options options_;
  Clock& clock_;
  Log& log_;
  Payload_memory payloads_;
  std::unique_ptr<Resolver> resolver_;
  std::unique_ptr<Tls_context> tls_;  // made when first needed
  std::vector<std::shared_ptr<Socket_connection>> slots_;
  std::vector<std::uint32_t> free_slots_;
  std::uint64_t next_counter_ = 1;
  std::size_t connections_ = 0;
  std::deque<Connection_id> unauthenticated_;  // incoming, oldest first; may name dead ones
  std::size_t unauthenticated_count_ = 0;
  std::vector<Connection_id> dirty_;
  std::vector<Connection_id> flushing_;
  std::vector<std::shared_ptr<Stream_acceptor>> acceptors_;
  Turn_hook* turn_hook_ = nullptr;
  Rate_limit refusals_;
  unsigned ticks_ = 0;
};

}  // namespace pstorage
