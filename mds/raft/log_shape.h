// The durable log without its bytes: where it ends, its terms, its configurations.
#pragma once

#include <utility>

#include "core/assert.h"
#include "mds/raft/raft_types.h"

namespace pstorage::mds::raft {

class Log_shape {
 public:
  void reset(Snapshot const& base) {
    last_index_ = base.index;
    terms_ = {{base.index, base.term}};
    configurations_ = {{base.index, base.configuration}};
  }
  std::uint64_t last_index() const { return last_index_; }

  void append(Log_entry const& entry) {
    PS_ASSERT(entry.index == last_index_ + 1);
    last_index_ = entry.index;
    if (entry.term != terms_.back().second) terms_.emplace_back(entry.index, entry.term);
    if (entry.kind != Entry_kind::configuration) return;
    auto configuration = decode_configuration(entry.bytes.bytes());
    PS_ASSERT(configuration.has_value());
    configurations_.emplace_back(entry.index, std::move(configuration).value());
  }
  void truncate_from(std::uint64_t index) {
    if (index > last_index_) return;
    PS_ASSERT(index > terms_.front().first);
    last_index_ = index - 1;
    while (terms_.back().first >= index) terms_.pop_back();
    while (configurations_.back().first >= index) configurations_.pop_back();
  }
  /// Where the next segment begins.
  Snapshot end() const {
    return {last_index_, terms_.back().second, configurations_.back().second};
  }

 private:
  std::uint64_t last_index_ = 0;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> terms_;           // first index, term
  std::vector<std::pair<std::uint64_t, Configuration>> configurations_;  // index, in force from
};

}  // namespace pstorage::mds::raft
