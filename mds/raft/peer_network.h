// Connections between the members of a cluster: one link to each other member, and further ones for
// snapshots, so that heartbeats never queue behind them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/env/clock.h"
#include "core/env/network.h"
#include "core/log.h"
#include "mds/raft/raft_codec.h"

namespace pstorage::mds::raft {

/// What a member hears from others; each sender has named itself and us.
class Peer_listener {
 public:
  virtual ~Peer_listener() = default;
  virtual void on_raft_message(Raft_message message) = 0;
  /// A packet of a snapshot's stream.
  virtual void on_stream_packet(Connection_id connection, Member_id from, raft_wire::Packet& packet,
                                Slice data) = 0;
  virtual void on_stream_closed(Connection_id connection) = 0;
};

/// Thread: the owner's loop.
class Peer_network final : public Connection_handler {
 public:
  struct Options {
    std::string cluster_uuid;
    Member_id id{};
    std::size_t queue_bytes_max = 64u << 20;  // per member; more is dropped: Raft sends again
    Duration reconnect_interval = std::chrono::milliseconds(200);
  };
  Peer_network(Clock& clock, Network& network, Log& log, Options options, Peer_listener& listener);
  ~Peer_network() override;

  /// Keeps links to exactly these, but for ourselves.
  void set_members(Configuration const& configuration);
  /// Sends over the link, or back over the connection that the member made to us; or drops: Raft
  /// sends again.
  void send(Raft_message const& message);
  /// A new connection to `to`; what is sent over it follows our hello. 0: no address is known.
  Connection_id open_stream(Member_id to);
  void send(Connection_id connection, raft_wire::Packet const& packet, Slice data = {});
  void close(Connection_id connection);
  /// Connects again what was lost.
  void on_tick();

  void on_connected(Connection_id connection, Peer_info const& peer) override;
  void on_message(Connection_id connection, Message& message) override;
  void on_disconnected(Connection_id connection, Failure const& why) override;

 private:
  struct Peer {
    std::string address;
    Connection_id link;      // ours to it
    Connection_id incoming;  // the newest of its own that carried a Raft message
    Time_point next_attempt;
  };
  struct Connection {
    Member_id member{};  // 0: it has not said hello yet
    bool is_ours = false;
    bool is_open = false;
    std::vector<Message> early{};  // of a stream: until it is open
  };
  Connection_id connect(Member_id to, std::string const& address);
  void say_hello(Connection_id connection, Member_id to);
  bool greet(Connection_id connection, raft_wire::Hello const& hello);

  Clock& clock_;
  Network& network_;
  Log& log_;
  Options const options_;
  Peer_listener& listener_;
  std::map<Member_id, Peer> peers_;
  std::map<Connection_id, Connection> connections_;
};

}  // namespace pstorage::mds::raft
