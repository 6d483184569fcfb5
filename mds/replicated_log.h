// The log that every change of the metadata goes through, and who takes part in it:
// raft/raft_node.h.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/result.h"

namespace pstorage::mds {

/// An entry that is durable on a majority and will never change.
struct Committed_entry {
  std::uint64_t index = 0;  // from 1, without gaps
  std::string bytes;        // empty: of the log itself; only `index` counts
};

/// Hears of the log's progress; called on the owner's loop.
class Log_listener {
 public:
  virtual ~Log_listener() = default;
  /// In order of index, each entry once. Never empty.
  virtual void on_committed(std::vector<Committed_entry> entries) = 0;
  /// The disk has failed a write or a sync: nothing is known about what was proposed since, and
  /// nothing more will be committed. The process must end.
  virtual void on_log_failed(Failure const& why) = 0;
  /// This member leads from now on and has handed out everything of earlier leaders; or it leads no
  /// more, and nothing is known about what was proposed and not yet handed out: indexes may be
  /// given to entries of others. Called before any entry is handed out under the new state.
  virtual void on_leadership(bool leads) = 0;
};

/// A metadata server that takes part, as the leader sees it.
struct Log_member {
  std::uint64_t id = 0;  // of its repository
  std::string address;   // for other metadata servers
  bool is_voter = false;
  bool is_leader = false;
  bool is_active = false;   // heard of lately
  bool takes_copy = false;  // so far behind that it gets a copy of the whole state
  bool has_lost = false;    // lacks entries that it had acknowledged: an old or damaged repository
  std::uint64_t lag = 0;    // entries that it has not acknowledged
};

/// Called with the index that must have been applied before the state may be read.
using Barrier_done = std::function<void(Result<std::uint64_t>)>;

/// Thread: the owner's loop.
class Replicated_log {
 public:
  virtual ~Replicated_log() = default;
  /// Recovers the log and hands every committed entry above `applied` to `listener`, from inside.
  /// Errors: corrupt (with what to do), the system's.
  virtual Outcome<void> start(std::uint64_t applied, Log_listener& listener) = 0;
  /// Queues `entry`; returns the index that it will have if it is committed. Errors: not_leader,
  /// no_space, too_large, closed. Nothing is written before flush().
  virtual Outcome<std::uint64_t> propose(std::string entry) = 0;
  /// Starts to write what was proposed. Called once a loop turn, so that entries of the same turn,
  /// and those that come while a sync runs, share one write and one sync.
  virtual void flush() = 0;
  /// Every second or so: retries to make room after the disk was full.
  virtual void tick() = 0;
  /// Calls `done`, perhaps from inside, when reads of the state see everything that was
  /// acknowledged before this call.
  virtual void read_barrier(Barrier_done done) = 0;
  /// Entries below `index` are not needed any more: their effects are durable elsewhere.
  virtual void cut(std::uint64_t index) = 0;
  virtual bool is_leader() const = 0;
  /// Where the leader listens for other metadata servers; empty: unknown, or it is this one.
  virtual std::string leader_address() const = 0;
  virtual std::uint64_t term() const = 0;
  /// Highest committed index; 0 = none yet.
  virtual std::uint64_t committed() const = 0;
  /// Commits (write + sync) since the start, for statistics.
  virtual std::uint64_t commits() const = 0;
  /// Is a commit under way?
  virtual bool is_committing() const = 0;

  /// Of this server's repository.
  virtual std::uint64_t own_id() const = 0;
  /// In order of id. Only the leader knows more than ids and addresses.
  virtual std::vector<Log_member> members() const = 0;
  /// On the leader, one change at a time. A new member counts once it has caught up. Errors:
  /// not_leader, unavailable (not now: try again), exists.
  virtual Outcome<void> add_member(std::uint64_t id, std::string const& address) = 0;
  /// Errors: not_leader, unavailable (not now; a leader hands over before it removes itself),
  /// not_found, refused (the last one).
  virtual Outcome<void> remove_member(std::uint64_t id) = 0;
  /// A leader lets another member lead soon, if there is one that is ready to.
  virtual void hand_over() = 0;
};

}  // namespace pstorage::mds
