// The durable log of a Raft member: hard state and entries in segment files, one write and one sync
// a batch of Readys. Layout: mds/format.md.
#pragma once

#include <deque>

#include "core/env/random.h"
#include "mds/raft/log_shape.h"
#include "mds/raft/raft_core.h"
#include "mds/raft/raft_frame.h"
#include "mds/raft/segment_chain.h"

namespace pstorage::mds::raft {

/// Hears of what has become durable; called on the owner's loop, never from inside write().
class Raft_log_listener {
 public:
  virtual ~Raft_log_listener() = default;
  /// Every Ready up to the one with `token` is durable.
  virtual void on_persisted(std::uint64_t token) = 0;
  /// A write or sync has failed: nothing more becomes durable. The process must end.
  virtual void on_raft_log_failed(Failure const& why) = 0;
};

struct Raft_log_options {
  std::uint64_t segment_bytes = 8u << 20;  // multiple of 4096, more than the largest entry
  /// Room that is left for terms and votes when the disk is full.
  std::uint64_t reserve_bytes = 256u << 10;
  /// A new log: the members that it starts with. Empty: it waits until a leader tells.
  Configuration first;
  Member_id member{};  // whose log it is; 0: a new log draws one
  /// The repository has been used before: a log that is missing was lost, with its votes.
  bool must_exist = false;
};

/// A damaged frame in the middle is found at start: the entries before it are kept, and the hard
/// state says until where the member has to be repaired. Damage of the last frame looks like a torn
/// write and is cut off. Thread: the owner's loop.
class Raft_log {
 public:
  Raft_log(Disk& disk, Random& random, Log& log, Raft_log_options options);
  Raft_log(Raft_log const&) = delete;
  Raft_log& operator=(Raft_log const&) = delete;

  /// Recovers the log, or makes a new one. `applied`: what the state machine has, durably. Errors:
  /// corrupt (beyond repair, or of another member), the system's; with a line for a person.
  Outcome<Core_state> start(std::uint64_t applied, Raft_log_listener& listener);
  Member_id member() const { return member_; }

  /// Queues what `ready` asks to be durable. Ready.token != 0.
  void write(Ready const& ready);
  /// Starts a write and its sync, if none is under way. Once a turn.
  void flush();
  /// Before the first flush() only: makes everything queued durable, blocking, and reports it from
  /// inside.
  Outcome<void> flush_blocking();
  /// Every second or so.
  void tick() { chain_.retry(); }
  /// Entries up to `index` are not needed any more.
  void cut(std::uint64_t index);

  /// Is there room for entries of about `bytes`? False only when the disk is full.
  bool has_room(std::uint64_t bytes) const;
  /// Can an entry of this size ever be written?
  bool fits(std::size_t entry_bytes) const;
  std::uint64_t commits() const { return commits_; }
  /// Is the disk at it?
  bool is_committing() const { return is_syncing_; }

 private:
  struct Item {               // what one frame may hold: a Ready, or a piece of one
    std::uint64_t token = 0;  // of the Ready that ends with it
    bool must_sync = false;
    Hard_state hard;
    std::optional<Snapshot> install;
    std::uint64_t first_index = 0;
    std::vector<Log_entry> entries;
    std::size_t payload_bytes = 0;
  };
  struct Segment_shape {  // what recovery from a segment needs to know
    std::uint64_t base = 0;
    std::uint64_t lowest = ~std::uint64_t{0};  // first_index of its frames
    bool is_durable = false;                   // its first frame is
  };
  struct Recovery;  // raft_log_recovery.cc

  // raft_log_recovery.cc
  Outcome<void> create(Core_state& state);
  Outcome<void> recover(std::vector<Segment_chain::Found> const& found, Recovery& recovery);
  Outcome<void> recover_from(std::span<Segment_chain::Found const> found, Recovery& recovery);
  Outcome<void> scan(Segment_chain::Found const& segment, bool is_last, Recovery& recovery);
  Outcome<void> take_frame(Raft_frame frame, Recovery& recovery);
  Outcome<void> take_entries(Raft_frame& frame, Recovery& recovery);
  static void collect_damage(Raft_frame const& frame, Recovery& recovery);
  Outcome<void> note_damage(Recovery& recovery);
  Outcome<void> write_at_start(Raft_frame const& frame);

  void queue(Ready const& ready);
  bool is_room_for(Item const& item) const;
  void begin_segment();
  bool make_room();
  Raft_frame next_frame();
  void merge(Raft_frame& frame, Item& item);
  bool write_batch();
  Result<void> write_frame(Raft_frame const& frame);
  void note_shape(Raft_frame const& frame);
  void batch_synced(Result<void> result);
  std::uint64_t finish_batch();
  void fail(Failure const& why);

  Random& random_;
  Log& log_;
  Raft_log_options const options_;
  Segment_chain chain_;
  Raft_log_listener* listener_ = nullptr;

  std::uint64_t salt_ = 0;
  Member_id member_;
  Hard_state last_hard_;                // of the last frame
  std::uint64_t last_sequence_ = 0;     // of frames
  Log_shape shape_;                     // with everything written, synced or not
  std::deque<Segment_shape> segments_;  // from chain_.oldest() on
  bool is_segment_new_ = false;         // its first frame must carry the base

  std::deque<Item> items_;
  std::uint64_t queued_bytes_ = 0;
  std::uint64_t batch_token_ = 0;
  bool is_syncing_ = false;
  bool has_failed_ = false;
  std::uint64_t commits_ = 0;
};

}  // namespace pstorage::mds::raft
