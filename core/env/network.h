// The network as the roles see it: whole messages on connections. Real: core/net/socket_network.h;
// simulated: tests/sim. Everything happens on the owner's one loop; nothing here blocks.
#pragma once

#include <cstddef>
#include <string>

#include "core/address.h"
#include "core/ids.h"
#include "core/net/message.h"
#include "core/result.h"

namespace pstorage {

enum class Role : unsigned char { mds = 1, cs = 2, client = 3, tool = 4 };

/// Who is at the other end, as it proved (the key) and said (the rest) in its hello.
struct Peer_info {
  Role role = Role::client;
  std::string name;  // "pstorage-nbd[4711]@host1", for people
  Host_id host;
  std::string cluster_uuid;  // empty: it does not know it yet
  std::string address;       // of the peer, for people
  bool is_local = false;     // unix socket or loopback
};

/// What a role hears of its connections. After on_disconnected the id is dead.
class Connection_handler {
 public:
  virtual ~Connection_handler() = default;
  /// Outgoing: connected and authenticated. Incoming: accepted and authenticated.
  virtual void on_connected(Connection_id connection, Peer_info const& peer) = 0;
  /// Slices of `message` may be moved from or kept.
  virtual void on_message(Connection_id connection, Message& message) = 0;
  /// Also called instead of on_connected when connecting failed. `why`: one clause for a person.
  virtual void on_disconnected(Connection_id connection, Failure const& why) = 0;
};

/// Called once a loop turn, after all messages that had arrived were handed out and before queued
/// messages are written: where a CS writes its journal batch.
class Turn_hook {
 public:
  virtual ~Turn_hook() = default;
  virtual void on_turn_end() = 0;
};

class Network {
 public:
  virtual ~Network() = default;
  /// Starts to connect; never calls back from inside. The handler must outlive the connection.
  virtual Connection_id connect(Address const& to, Connection_handler& handler) = 0;
  /// As connect(), in another role than this process has: core/env/role_network.h.
  virtual Connection_id connect_as(Role role, Address const& to, Connection_handler& handler) {
    static_cast<void>(role);
    return connect(to, handler);
  }
  /// Listens; each accepted and authenticated peer is reported to `handler`. Returns the address
  /// with its real port. Errors: the system's, with a line for a person.
  virtual Outcome<Address> listen(Address const& at, Connection_handler& handler) = 0;
  /// Queues `message`; written at the end of the turn, together with the others (cork). A dead or
  /// unknown connection swallows it; one that is being made keeps it until it is connected.
  /// Messages of one connection arrive in order or not at all.
  virtual void send(Connection_id connection, Message message) = 0;
  /// Memory for a payload of `bytes` that send() may pass without copying it. Empty: it has none
  /// such now, any other memory does.
  virtual Slice take_payload(std::size_t bytes) {
    static_cast<void>(bytes);
    return {};
  }
  /// Drops the connection and what is queued on it; no on_disconnected follows.
  virtual void close(Connection_id connection) = 0;
  /// Bytes queued and not yet taken by the kernel: a sender's brake.
  virtual std::size_t queued_bytes(Connection_id connection) const = 0;
  /// At most one hook.
  virtual void set_turn_hook(Turn_hook* hook) = 0;
};

}  // namespace pstorage
