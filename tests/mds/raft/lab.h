// A cluster of Raft cores on a bench: every message, sync and crash happens when the test says so.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "mds/raft/raft_core.h"
#include "tests/mds/raft/raft_checker.h"

namespace pstorage::mds::raft {

/// Durable state, and Readys that are not durable yet.
class Toy_disk {
 public:
  explicit Toy_disk(Configuration configuration) { state_.base.configuration = configuration; }
  void write(Ready ready) { under_way_.push_back(std::move(ready)); }
  bool is_busy() const { return !under_way_.empty(); }
  std::size_t waiting() const { return under_way_.size(); }
  /// Makes the oldest Ready durable and returns it.
  Ready complete();
  /// Loses what is under way.
  void crash() { under_way_.clear(); }
  void cut(Snapshot base);
  Core_state const& state() const { return state_; }
  Core_state& state() { return state_; }

 private:
  Core_state state_;
  std::deque<Ready> under_way_;
};

/// Election timeouts are as long as they can be: nobody stands before the test wants it.
class Late_random final : public Random {
 public:
  std::uint64_t next() override { return 1'000'000 * ++calls_ - 1; }

 private:
  std::uint64_t calls_ = 0;
};

/// Members are numbered from 1. Faults go to checker().
class Lab {
 public:
  explicit Lab(std::size_t voters, Core_options options = {});

  Raft_core& core(std::uint64_t member) { return *members_.at(member).core; }
  Raft_checker& checker() { return checker_; }
  /// A member that starts with an empty log and no configuration.
  void add(std::uint64_t member);
  void remove(std::uint64_t member) { members_.erase(member); }

  /// Carries out the Readys of `member`; its disk works unless held.
  void turn(std::uint64_t member);
  void hold_disk(std::uint64_t member, bool is_held);
  /// Loses what was not synced. Down until restart().
  void crash(std::uint64_t member);
  void restart(std::uint64_t member);
  /// The log of `member` (down) is damaged: entries from `index` on are gone, it knows.
  void damage(std::uint64_t member, std::uint64_t index);
  /// Makes the oldest Ready of `member`, whose disk is held, durable.
  void sync_one(std::uint64_t member);
  /// The leader's state at `index`; 0: at the last index that it has applied.
  Snapshot snapshot_of(std::uint64_t leader, std::uint64_t index = 0);
  /// `snapshot`, sent by `leader` in `term`, has arrived. False if it is of no use any more.
  bool install(std::uint64_t member, Snapshot snapshot, std::uint64_t leader, std::uint64_t term);

  void tick(std::uint64_t member, unsigned ticks = 1);
  /// Lets `member` stand for election (the others have not heard of a leader for long enough) and
  /// delivers everything. True if it leads.
  bool elect(std::uint64_t member);
  /// Makes everybody ready to vote: nobody remembers hearing of a leader lately.
  void forget_leaders();
  std::optional<std::uint64_t> propose(std::uint64_t member, std::string const& command);

  /// Messages between the two are lost, both ways.
  void cut(std::uint64_t one, std::uint64_t other);
  /// `member` hears nobody and nobody hears it.
  void isolate(std::uint64_t member);
  void heal() { cuts_.clear(); }
  using Filter = std::function<bool(Raft_message const&)>;
  /// Messages for which it is true stay on the wire, until release().
  void hold(Filter filter) { held_if_ = std::move(filter); }
  std::vector<Raft_message> release();
  std::deque<Raft_message>& wire() { return wire_; }
  void deliver(Raft_message message);
  /// Delivers until nothing is on the way. False if it does not end.
  bool deliver_all();
  /// Ticks everybody and delivers, `ticks` times.
  void run(unsigned ticks);

  std::vector<Log_entry> const& handed_out(std::uint64_t member) {
    return members_.at(member).handed_out;
  }
  /// Commands handed out to `member`, in order.
  std::vector<std::string> commands(std::uint64_t member);
  std::vector<Read_state> reads(std::uint64_t member) { return members_.at(member).reads; }
  bool needs_snapshot(std::uint64_t member) const { return snapshots_needed_.contains(member); }
  bool has_stepped_down(std::uint64_t member) { return members_.at(member).has_stepped_down; }
  /// The checker's fault or, if it has none, `otherwise` unless `holds`.
  std::string verdict(bool holds, std::string const& otherwise);

 private:
  struct Lab_member {
    std::unique_ptr<Raft_core> core;
    Toy_disk disk;
    bool is_disk_held = false;
    std::vector<Log_entry> handed_out;  // the state machine; survives
    std::vector<Read_state> reads;
    bool has_stepped_down = false;
  };
  Core_options options_for(std::uint64_t member) const;
  void post(std::vector<Raft_message> messages);

  Core_options const options_;
  Late_random random_;
  Raft_checker checker_;
  std::map<std::uint64_t, Lab_member> members_;
  std::deque<Raft_message> wire_;
  std::deque<Raft_message> held_;
  Filter held_if_;
  std::set<std::pair<std::uint64_t, std::uint64_t>> cuts_;
  std::set<std::uint64_t> snapshots_needed_;
};

}  // namespace pstorage::mds::raft
