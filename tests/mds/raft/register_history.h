// Are the clients' operations linearizable? One register a key; the log gives the order.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "tests/mds/raft/raft_checker.h"

namespace pstorage::mds::raft {

/// Writes of a key are ordered by their index in the log. An operation takes effect between its
/// begin and its end: so it may not be ordered before one that had ended when it began.
class Register_history {
 public:
  explicit Register_history(Raft_checker& checker) : checker_(checker) {}

  /// What the operation that begins now must not be ordered before.
  std::uint64_t begin(unsigned key) const {
    auto const found = floor_.find(key);
    return found == floor_.end() ? 0 : found->second;
  }
  /// A write that began at `floor` was acknowledged at `index`.
  void wrote(unsigned key, std::uint64_t floor, std::uint64_t index, std::string const& command) {
    checker_.acknowledged(index, command);
    if (index <= floor) checker_.fail("a write is ordered before one that had ended: " + command);
    raise(key, index);
  }
  /// A read that began at `floor` returned what was written by the entry at `index`; 0 = nothing.
  void read(unsigned key, std::uint64_t floor, std::uint64_t index, std::string const& command) {
    if (index < floor) {
      checker_.fail("a stale read of key " + std::to_string(key) + ": entry " +
                    std::to_string(index) + ", " + std::to_string(floor) + " was acknowledged");
    }
    if (index != 0) checker_.acknowledged(index, command);
    raise(key, index);
  }

 private:
  void raise(unsigned key, std::uint64_t index) {
    auto& floor = floor_[key];
    if (index > floor) floor = index;
  }
  Raft_checker& checker_;
  std::map<unsigned, std::uint64_t> floor_;
};

}  // namespace pstorage::mds::raft
