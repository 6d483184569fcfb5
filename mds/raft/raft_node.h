// A member of a replicated metadata log: the Raft core with its durable log, its peers and its
// snapshots, behind the interface that the metadata server uses.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/env/clock.h"
#include "core/env/network.h"
#include "core/metrics/histogram.h"
#include "mds/raft/peer_network.h"
#include "mds/raft/raft_core.h"
#include "mds/raft/raft_log.h"
#include "mds/raft/snapshot.h"
#include "mds/replicated_log.h"

namespace pstorage::mds::raft {

struct Raft_node_options {
  std::string cluster_uuid;
  Address listen;  // for other metadata servers
  Raft_log_options log;
  Core_options core;        // its id comes from the log
  unsigned tick_ticks = 5;  // of the owner's, for one of the core's: 50 ms, elections after 0.5-1 s
  /// Entries that stay in the log, and in memory, for members that are a little behind.
  std::uint64_t tail_entries = 1024;
  Duration snapshot_timeout = std::chrono::seconds(10);  // without progress
};

/// The owner calls on_tick() every tick_interval, flush() once a loop turn and tick() every second.
/// With one voter an entry is committed at its own sync, and it leads when start() returns. Thread:
/// the owner's loop.
class Raft_node final : public Replicated_log,
                        public Ticker,
                        private Peer_listener,
                        private Raft_log_listener {
 public:
  /// `source` and `sink` may be null: then members that are too far behind stay behind.
  Raft_node(Clock& clock, Network& network, Disk& disk, Random& random, Log& log,
            Raft_node_options options, Snapshot_source* source, Snapshot_sink* sink);
  ~Raft_node() override;

  Outcome<void> start(std::uint64_t applied, Log_listener& listener) override;
  Outcome<std::uint64_t> propose(std::string entry) override;
  void flush() override;
  void tick() override;
  void read_barrier(Barrier_done done) override;
  void cut(std::uint64_t index) override;
  bool is_leader() const override { return leads_; }
  std::string leader_address() const override;
  std::uint64_t term() const override { return core_ ? core_->term() : 0; }
  std::uint64_t committed() const override { return handed_out_; }
  std::uint64_t commits() const override { return log_file_.commits(); }
  /// How long commits take: write and sync.
  Latency_histogram const& commit_times() const { return commit_times_; }
  bool is_committing() const override { return log_file_.is_committing(); }
  void on_tick() override;

  std::uint64_t own_id() const override { return id().value; }
  std::vector<Log_member> members() const override;
  Outcome<void> add_member(std::uint64_t id, std::string const& address) override;
  Outcome<void> remove_member(std::uint64_t id) override;
  void hand_over() override;
  Member_id id() const { return log_file_.member(); }
  /// In force here; what is not committed may go again.
  Configuration const& configuration() const { return core_->configuration(); }
  Raft_core const& core() const { return *core_; }

 private:
  struct Barrier {
    std::uint64_t index = 0;
    Barrier_done done;
  };
  struct Outgoing {  // a snapshot on its way to a member
    std::uint64_t number = 0;
    Connection_id connection;  // 0: the copy is being made
    Snapshot snapshot;
    std::uint64_t term = 0;
    std::unique_ptr<Snapshot_reader> reader;
    std::uint64_t offset = 0;  // of the next piece
    bool is_reading = false;
    bool has_failed = false;
    Time_point deadline;
  };
  struct Incoming {
    std::uint64_t number = 0;
    Connection_id connection;
    Member_id from;
    Snapshot snapshot;
    std::uint64_t term = 0;
    std::uint64_t size = 0;
    std::uint64_t offset = 0;
    Time_point deadline;
  };

  void on_raft_message(Raft_message message) override;
  void on_stream_packet(Connection_id connection, Member_id from, raft_wire::Packet& packet,
                        Slice data) override;
  void on_stream_closed(Connection_id connection) override;
  void flush_log();
  void on_persisted(std::uint64_t token) override;
  void on_raft_log_failed(Failure const& why) override;

  // raft_node.cc
  Outcome<void> lead_alone();
  void pump();
  void carry_out(Ready ready);
  void hand_out(std::vector<Log_entry> const& entries);
  void finish_reads(std::vector<Read_state> const& states);
  void release_barriers();
  void update_leadership();
  Failure not_leader() const;

  // raft_node_members.cc
  Outcome<void> change(Change const& change);
  void promote_learners();

  // raft_node_snapshots.cc
  void send_snapshot(Member_id to);
  void snapshot_opened(Member_id to, std::uint64_t number,
                       Result<std::unique_ptr<Snapshot_reader>> opened);
  void on_answer(Member_id from, Connection_id connection, raft_wire::Answer const& answer);
  void read_piece(Member_id to, Outgoing& outgoing);
  void send_piece(Member_id to, std::uint64_t number, Result<Slice> piece);
  void finish_outgoing(Member_id to, bool is_ok);
  void on_offer(Connection_id connection, Member_id from, raft_wire::Offer const& offer);
  void on_piece(Connection_id connection, raft_wire::Piece const& piece, Slice const& data);
  void received(std::uint64_t number, Result<void> synced);
  void answer(Connection_id connection, raft_wire::Answer::Kind kind, std::uint64_t offset = 0);
  void refuse_incoming(char const* why);
  void expire_snapshots();
  std::uint64_t cut_limit() const;

  // raft_node_install.cc
  Result<void> store_installing(Snapshot const& snapshot);
  Outcome<std::optional<Snapshot>> load_installing();

  Clock& clock_;
  Network& network_;
  Disk& disk_;
  Random& random_;
  Log& log_;
  Raft_node_options const options_;
  Snapshot_source* const source_;
  Snapshot_sink* const sink_;
  Raft_log log_file_;
  std::optional<Time_point> commit_began_;
  Latency_histogram commit_times_;
  std::unique_ptr<Raft_core> core_;
  std::unique_ptr<Peer_network> peers_;
  Log_listener* listener_ = nullptr;

  bool is_starting_ = false;
  bool is_pumping_ = false;
  bool has_failed_ = false;
  bool leads_ = false;
  std::uint64_t begun_term_ = 0;  // term of the last `begin` entry that was handed out
  std::uint64_t handed_out_ = 0;
  std::uint64_t configuration_seen_ = ~std::uint64_t{0};
  unsigned ticks_ = 0;
  std::deque<std::pair<std::uint64_t, std::vector<Raft_message>>> unsent_;  // until the token
  std::uint64_t open_read_ = 0;  // not asked yet: further barriers may join it
  std::map<std::uint64_t, std::vector<Barrier_done>> asked_;
  std::vector<Barrier> barriers_;  // until their index is handed out
  std::map<Member_id, Outgoing> outgoing_;
  std::optional<Incoming> incoming_;
  std::uint64_t last_stream_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pstorage::mds::raft
