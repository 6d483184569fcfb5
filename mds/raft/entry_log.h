// The log in memory: entries behind a base, and the configurations among them.
#pragma once

#include <deque>
#include <utility>

#include "mds/raft/raft_types.h"

namespace pstorage::mds::raft {

/// Invariants: entries are contiguous from base.index + 1, terms never fall.
class Entry_log {
 public:
  /// `entries`: contiguous behind `base`.
  Entry_log(Snapshot base, std::vector<Log_entry> entries);

  std::uint64_t base_index() const { return base_.index; }
  std::uint64_t last_index() const { return base_.index + entries_.size(); }
  std::uint64_t last_term() const { return entries_.empty() ? base_.term : entries_.back().term; }
  /// Term of the entry at `index`; nothing outside [base_index, last_index].
  std::optional<std::uint64_t> term_at(std::uint64_t index) const;
  Log_entry const& at(std::uint64_t index) const;
  /// Entries [from, to], at least one, then as many as fit `bytes_max`.
  std::vector<Log_entry> slice(std::uint64_t from, std::uint64_t to, std::size_t bytes_max) const;
  /// The highest index up to `index` whose term is not above `term`: where two logs may agree. May
  /// be below base_index: then this log does not reach back far enough.
  std::uint64_t agree_at(std::uint64_t index, std::uint64_t term) const;

  void append(Log_entry entry);
  void truncate_from(std::uint64_t index);
  /// Forgets entries up to `index`.
  void cut(std::uint64_t index);
  void reset(Snapshot base);
  /// The log's state at `index`, as a snapshot there has it. `index` in [base_index, last_index].
  Snapshot snapshot_at(std::uint64_t index) const;

  /// The newest one.
  Configuration const& configuration() const { return configurations_.back().second; }
  /// Index of its entry.
  std::uint64_t configuration_index() const { return configurations_.back().first; }

 private:
  Snapshot base_;
  std::deque<Log_entry> entries_;
  std::vector<std::pair<std::uint64_t, Configuration>> configurations_;  // first: the base's
};

}  // namespace pstorage::mds::raft
