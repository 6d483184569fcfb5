// A set of file clusters, kept as runs: a whole disk that was trimmed is one entry, not millions.
#pragma once

#include <cstdint>
#include <map>
#include <utility>

namespace pstorage::ploop {

/// Disjoint, merged runs of cluster numbers. A value.
class Cluster_runs {
 public:
  bool empty() const { return runs_.empty(); }
  /// Clusters in the set.
  std::uint64_t count() const { return count_; }
  /// start -> length.
  std::map<std::uint32_t, std::uint32_t> const& runs() const { return runs_; }

  /// Adds [start, start + length). None of them is in the set yet.
  void add(std::uint32_t start, std::uint32_t length = 1);
  void add(Cluster_runs const& other) {
    for (auto const& [start, length] : other.runs_) add(start, length);
  }
  /// Takes the lowest one out. The set is not empty.
  std::uint32_t take_first();
  /// Takes out all of them at once.
  Cluster_runs take_all() { return std::exchange(*this, {}); }

 private:
  std::map<std::uint32_t, std::uint32_t> runs_;
  std::uint64_t count_ = 0;
};

}  // namespace pstorage::ploop
