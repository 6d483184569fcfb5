// A chunk server: connections, requests, the MDS. Everything it decides with is in Replica, Store
// and Sync_manager; it is built from the seams, so that the simulator runs the very same class.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/client/mds_session.h"
#include "core/env/clock.h"
#include "core/env/disk.h"
#include "core/env/network.h"
#include "core/env/random.h"
#include "core/log.h"
#include "core/metrics/metrics_text.h"
#include "cs.pb.h"
#include "cs/block_healer.h"
#include "cs/repository.h"
#include "cs/scrubber.h"
#include "cs/settler.h"
#include "cs/store.h"
#include "cs/sync_manager.h"

namespace pstorage::cs {

struct Chunk_server_options {
  Repository_identity identity;
  Host_id host;
  std::string host_name;
  std::string location;              // room.row.rack, "" = default
  std::vector<Address> mds_servers;  // empty: serves without an MDS (tests)
  /// Mds_session_options::on_servers.
  std::function<void(std::vector<Address> const&)> on_mds_servers;
  Store_options store;  // salt is taken from the identity
  Sync_options sync;
  std::size_t queued_bytes_max = 64u << 20;     // to one client; then its reads wait
  std::size_t deferred_bytes_max = 256u << 20;  // requests waiting for room in journal and memory
  Duration heartbeat_interval = std::chrono::seconds(1);
  bool encrypted = false;  // connections stay in TLS
  /// Of the loop, for Settler; null: this server settles nothing (tests).
  Executor* executor = nullptr;
  /// The MDS says that this server was removed for ever (rm-cs): it should end.
  std::function<void(Failure const&)> on_dropped;
  /// cs.log.level as the MDS has it, now and then; 0: as the process was started.
  std::function<void(unsigned)> set_log_level;
};

/// Thread: the owner's loop, which calls on_turn_end() every turn and on_tick() every
/// tick_interval.
class Chunk_server final : public Connection_handler, public Turn_hook, public Ticker {
 public:
  /// `journal_disk` holds the journal (options.store.journal_name); often it is `disk`.
  Chunk_server(Clock& clock, Network& network, Disk& disk, Disk& journal_disk, Random& random,
               Log& log, Chunk_server_options options);
  ~Chunk_server() override;

  /// Recovers the repository. Blocking. Errors: with a line for a person.
  Outcome<void> start();
  /// Registers with the MDS: this server is reachable at `addresses` now. The owner has passed it
  /// to Network::listen() as handler.
  void serve(std::vector<Address> const& addresses);
  /// Takes no more requests, makes everything durable and marks the repository clean.
  void stop(std::function<void(Errc)> done);

  void on_connected(Connection_id connection, Peer_info const& peer) override;
  void on_message(Connection_id connection, Message& message) override;
  void on_disconnected(Connection_id connection, Failure const& why) override;
  void on_turn_end() override;
  void on_tick() override;

  Incarnation incarnation() const { return incarnation_; }
  /// Adds what this server holds and has done since its start to `text`.
  void collect(Metrics_text& text) const;
  /// Why it does not serve as it should; empty: it does.
  std::string trouble() const;
  Store& store() { return *store_; }

 private:
  struct Peer {
    Role role = Role::client;
    std::string name;
    std::size_t deferred_bytes = 0;
  };
  struct Ack {
    Connection_id connection;
    Header header;  // of the reply
    Lsn lsn = 0;    // large: when the store has put this in place
  };
  struct Deferred {
    Connection_id connection;
    Message message;
  };
  struct Control_reply {
    Connection_id connection;
    Header header;
    proto::Cs_reply reply;
  };

  struct Check {
    Connection_id connection;
    Header header;
    proto::Check_chunk request;
    std::uint32_t bad = 0;
  };

  // chunk_server.cc
  void dispatch(Connection_id connection, Role role, Message& message);
  bool must_wait(Connection_id connection, Message& message, std::size_t bytes);
  void defer(Connection_id connection, Message& message);
  void retry_deferred();
  void answer(Connection_id connection, Header const& request, Errc status);
  void acknowledge(Connection_id connection, Header const& request, Chunk const& chunk,
                   Store::Accepted accepted);
  void answer_large();
  void finish_turn();
  void made_progress();
  void note_client();
  void end_measured_turn();
  void note_lateness(Time_point now);
  bool must_wait_for_pace(Connection_id connection, Message& message);
  void retry_pulls();

  // data_requests.cc
  Chunk* open_chunk(Connection_id connection, Message const& message);
  void handle_write(Connection_id connection, Message& message);
  void handle_zero(Connection_id connection, Message& message);
  void handle_repair(Connection_id connection, Message& message);
  void handle_flush(Connection_id connection, Message& message);
  void handle_read(Connection_id connection, Role role, Message& message);
  Errc check_reading(Chunk const& chunk, Role role, Header const& header) const;
  void send_read(Connection_id connection, Header const& request, Read_result& result);
  void accept_duplicate(Connection_id connection, Header const& request, Chunk const& chunk);

  // control_requests.cc
  void handle_control(Connection_id connection, Role role, Message& message);
  void handle_seal(Connection_id connection, Header const& header, proto::Seal const& seal);
  void handle_open(Connection_id connection, Header const& header, proto::Open_chunks const& open);
  void open_one(proto::Open_chunks const& open, proto::Open_chunks::One const& one,
                proto::Cs_reply::Opened& opened);
  Errc open_replica(proto::Open_chunks const& open, proto::Open_chunks::One const& one,
                    Chunk*& opened);
  void handle_accept_torn(Connection_id connection, Header const& header,
                          proto::Accept_torn const& torn);
  void send_control(Connection_id connection, Header const& request, proto::Cs_reply& reply);
  void send_control(Connection_id connection, Header const& request, Errc status);

  // upkeep.cc
  void start_upkeep();
  void upkeep();
  void find_replicas(Chunk_id chunk, std::uint32_t blocks,
                     std::function<void(Outcome<proto::File_map>)> done);
  void send_inventory();
  void handle_check(Connection_id connection, Header const& header,
                    proto::Check_chunk const& check);
  void step_checks();

  // mds_link.cc
  void register_with_mds();
  void registration_answered(Outcome<proto::Mds_reply> const& reply);
  void heartbeat();
  std::string flags() const;
  void on_push(proto::Mds_push const& push);
  void delete_chunks(proto::Delete_chunks const& push);

  Clock& clock_;
  Network& network_;
  Random& random_;
  Log& log_;
  Chunk_server_options options_;
  Incarnation incarnation_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<client::Mds_session> mds_;
  Pull_pace pace_;
  std::unique_ptr<Sync_manager> sync_;
  std::unique_ptr<Scrubber> scrubber_;
  std::unique_ptr<Block_healer> healer_;
  std::unique_ptr<Settler> settler_;
  std::vector<Check> checks_;  // read, not yet answered

  std::map<Connection_id, Peer> peers_;
  Connection_id last_connection_;  // its peer is looked up once a run of messages
  Peer* last_peer_ = nullptr;
  std::vector<Ack> acks_;                       // of this turn
  std::vector<Control_reply> control_replies_;  // of this turn
  std::deque<Ack> large_acks_;
  std::deque<Deferred> deferred_;    // changes that wait for room, in order
  std::deque<Deferred> slow_reads_;  // of clients that do not take their answers
  std::deque<Deferred> slow_pulls_;  // of other servers, beyond the pace
  std::uint32_t client_turns_ = 0;   // some of which are measured
  bool turn_has_client_ = false;
  std::optional<Time_point> turn_began_;  // of a measured turn
  Time_point last_tick_{};
  Duration lateness_{0};  // of the last tick
  std::size_t deferred_bytes_ = 0;
  std::size_t slow_bytes_ = 0;
  bool stopping_ = false;

  std::vector<Address> addresses_;
  bool registered_ = false;
  bool registering_ = false;
  bool dropped_ = false;  // rm-cs
  bool heartbeat_sent_ = false;
  Time_point last_heartbeat_{};
  Time_point register_at_{};
  std::uint32_t ticks_ = 0;          // since the last heartbeat
  std::uint32_t ticks_waiting_ = 0;  // ... with somebody waiting for the disk
  std::uint64_t read_bytes_ = 0, write_bytes_ = 0, read_ops_ = 0, write_ops_ = 0;
  std::uint64_t served_before_ = 0;  // requests at the last tick
  Time_point corrupt_logged_{};
  Time_point last_inventory_{};
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pstorage::cs
