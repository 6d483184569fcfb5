// Raft as a pure state machine: messages, ticks and proposals in, Readys out. No I/O, no clock.
// After Ongaro's thesis; the contract with the shell is etcd/raft's. See mds/raft/README.md.
#pragma once

#include <deque>
#include <map>
#include <set>

#include "core/env/random.h"
#include "mds/raft/entry_log.h"
#include "mds/raft/progress.h"
#include "mds/raft/raft_types.h"

namespace pstorage::mds::raft {

struct Core_options {
  Member_id id{};
  unsigned election_ticks = 10;  // timeout: this to twice this
  unsigned heartbeat_ticks = 1;
  std::size_t append_bytes_max = 1u << 20;  // entries of one message
  Window window{};                          // of each other member
  std::size_t uncommitted_bytes_max = 64u << 20;
};

/// What the disk has at start.
struct Core_state {
  Hard_state hard;
  Snapshot base;                   // where the log begins
  std::vector<Log_entry> entries;  // behind it
  std::uint64_t applied = 0;       // the state machine has it; not below base.index
  /// The snapshot that the state machine was last replaced by, if it still stands at it: the log
  /// may not have heard of it before the end.
  std::optional<Snapshot> installing;
};

struct Change {
  enum class Kind { add_learner, promote, remove };
  Kind kind = Kind::add_learner;
  Member_id id{};
  std::string address;  // add_learner
};

/// The shell carries out every Ready in order, tells when it is durable, and delivers messages or
/// loses, repeats and reorders them. Thread: the owner's loop.
class Raft_core {
 public:
  /// `random`: for election timeouts and ids of reads.
  Raft_core(Core_options options, Core_state state, Random& random);

  /// Time passes.
  void tick();
  /// A message of another member. Malformed ones are dropped.
  void step(Raft_message message);
  /// Stands for election now, as if the timeout had passed. For a cluster of one at start.
  void campaign();
  /// Appends a command. Returns its index, or not_leader, unavailable (busy, or handing over).
  Result<std::uint64_t> propose(Slice bytes);
  /// Appends a change of the membership; one at a time. Returns its index, or not_leader;
  /// unavailable (not now: another is under way, the member is not caught up, or this leader was to
  /// be removed and is handing over first); exists, not_found, refused (the last voter).
  Result<std::uint64_t> change(Change const& change);
  /// Hands over to voter `to`. Errors: not_leader, not_found.
  Result<void> transfer(Member_id to);
  /// Asks for an index which the state must have been applied to, to show everything that was
  /// acknowledged before the call. Returns the id that a Read_state will carry. Errors: unavailable
  /// (no leader known).
  Result<std::uint64_t> read();

  /// Is there anything to carry out? Ask once a turn, so that its proposals leave together.
  bool has_ready();
  Ready take_ready();
  /// The Ready with `token`, and all before it, are durable.
  void persisted(std::uint64_t token);

  /// A streamed snapshot has reached `peer` and is installed there, or has failed.
  void snapshot_sent(Member_id peer, bool is_ok);
  /// May a snapshot at `index` be installed now? False: our log has what is in it.
  bool wants_snapshot(std::uint64_t index) const;
  /// The leader of `term` offers a snapshot that is not wanted: tells it what we have.
  void refuse_snapshot(Member_id leader, std::uint64_t term);
  /// The state machine has been replaced by `snapshot`, which the leader of `term` sent.
  void snapshot_installed(Snapshot snapshot, Member_id leader, std::uint64_t term);
  /// Entries up to `index` are not needed any more. Keeps what is not durable or not handed out.
  void cut(std::uint64_t index);

  Member_id id() const { return options_.id; }
  Raft_role role() const { return role_; }
  bool is_leader() const { return role_ == Raft_role::leader; }
  std::uint64_t term() const { return hard_.term; }
  Member_id leader() const { return leader_; }
  std::uint64_t commit() const { return hard_.commit; }
  std::uint64_t durable() const { return durable_; }
  Hard_state const& hard() const { return hard_; }
  bool is_damaged() const { return hard_.repair_until != 0; }
  Entry_log const& log() const { return log_; }
  Configuration const& configuration() const { return log_.configuration(); }
  /// Leader: is `member` so close behind that a promotion would not stop commits?
  bool is_caught_up(Member_id member) const;
  /// Leader: what it knows of the others.
  std::map<Member_id, Progress> const& progress() const { return progress_; }
  /// Leader: has it committed an entry of its own term?
  bool has_committed_own() const { return hard_.commit >= first_own_index_; }

 private:
  struct Outstanding {  // a Ready that is not durable yet
    std::uint64_t token = 0;
    std::uint64_t last_index = 0;  // durable with it; 0 = no entries
    std::uint64_t term = 0;
  };
  struct Pending_read {  // leader
    Member_id from;
    std::uint64_t id = 0;
    std::uint64_t index = 0;
    std::uint64_t round = 0;  // 0: no heartbeat has left since
  };

  // raft_core.cc
  void send(Raft_message message);
  bool accept_newer_term(Raft_message const& message);
  void answer_older_term(Raft_message const& message);
  void dispatch(Raft_message& message);
  void append(Entry_kind kind, Slice bytes);
  void truncate_from(std::uint64_t index);
  bool is_disk_stalled() const;
  bool is_hard_new() const;
  void replace_log(Snapshot snapshot);

  // raft_election.cc
  enum class Campaign { pre, real, transfer };
  void start_campaign(Campaign kind);
  bool may_campaign() const;
  void become_follower(std::uint64_t term, Member_id leader);
  void become_leader();
  void reset();
  void on_vote(Raft_message const& message);
  void on_vote_reply(Raft_message const& message);
  void tally();
  void tick_leader();
  void check_quorum();
  void on_timeout_now(Raft_message const& message);

  // raft_replication.cc (leader)
  void send_appends();
  void send_append(Member_id to, Progress& progress);
  void on_append_reply(Raft_message const& message);
  void on_rejected(Progress& progress, Raft_message const& message);
  static void probe_at(Progress& progress, std::uint64_t next);
  void maybe_commit();
  void sync_progress();
  void send_heartbeats();
  void on_heartbeat_reply(Raft_message const& message);
  void continue_transfer(Member_id from, Progress const& progress);

  // raft_follower.cc
  bool is_well_formed(Raft_message const& message) const;
  void on_append(Raft_message& message);
  void take_entries(std::vector<Log_entry>& entries);
  void on_heartbeat(Raft_message const& message);
  void commit_to(std::uint64_t index);
  void maybe_repaired();

  // raft_reads.cc
  void on_read(Raft_message const& message);
  void on_read_reply(Raft_message const& message);
  void answer_reads();
  void finish_read(Pending_read const& read);
  void fail_reads();
  void expire_reads();

  Core_options const options_;
  Random& random_;
  Hard_state hard_;
  Entry_log log_;
  Raft_role role_ = Raft_role::follower;
  Member_id leader_;

  // What the disk has. submitted_: handed to it with a Ready; durable_: it said so.
  std::uint64_t submitted_ = 0;
  std::uint64_t durable_ = 0;
  Hard_state submitted_hard_;
  std::uint64_t durable_term_ = 0;
  std::deque<Outstanding> outstanding_;
  std::uint64_t last_token_ = 0;
  unsigned stalled_ticks_ = 0;  // since the oldest of outstanding_ is the oldest

  // For the next Ready.
  std::optional<Snapshot> install_;
  std::uint64_t truncate_from_ = 0;
  std::vector<Raft_message> messages_now_;
  std::vector<Raft_message> messages_after_;
  std::vector<Read_state> read_states_;
  std::vector<Member_id> snapshots_needed_;
  bool has_stepped_down_ = false;
  std::uint64_t handed_out_ = 0;  // committed entries so far

  unsigned elapsed_ = 0;  // ticks since we heard of a leader, or since the last check of the quorum
  unsigned timeout_ = 0;
  unsigned heartbeat_elapsed_ = 0;
  std::map<Member_id, bool> votes_;

  // Follower.
  std::uint64_t verified_ = 0;  // equal to the log of this term's leader up to here
  std::map<std::uint64_t, unsigned> own_reads_;  // asked of the leader: id -> ticks

  // Leader.
  std::map<Member_id, Progress> progress_;  // of the other members
  std::uint64_t first_own_index_ = 0;       // of this term
  std::size_t uncommitted_bytes_ = 0;
  Member_id transferee_;
  std::vector<Pending_read> reads_;
  std::uint64_t round_ = 0;  // of heartbeats
  std::uint64_t next_read_ = 0;
};

}  // namespace pstorage::mds::raft
