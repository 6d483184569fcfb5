// Which file cluster a new piece of the disk gets. Pure.
#pragma once

#include <cstdint>
#include <optional>

#include "blockdev/ploop/cluster_runs.h"

namespace pstorage::ploop {

/// Hands out clusters that read as zeros, durably: holes that were punched first, so that the file
/// does not grow as long as there are some, else from the tail that was extended.
class Cluster_space {
 public:
  Cluster_space() = default;
  /// The file ends (durably) behind cluster `end - 1`, its last one in use; it grows by `step`.
  Cluster_space(std::uint32_t end, std::uint32_t step) : tail_(end), end_(end), step_(step) {}

  std::optional<std::uint32_t> take() {
    if (!clean_.empty()) return clean_.take_first();
    if (tail_ < end_) return tail_++;
    return std::nullopt;
  }

  /// These were punched, and that is durable.
  void add_clean(Cluster_runs const& runs) { clean_.add(runs); }
  /// One that was taken and never written to.
  void give_back(std::uint32_t cluster) { clean_.add(cluster); }

  /// Is it time to extend the file? Ahead, so that writers seldom wait for it.
  bool wants_extension() const { return clean_.empty() && end_ - tail_ <= step_ / 4; }
  /// Where it shall end then, in clusters: at the end of a step, so that none is begun in vain.
  std::uint32_t extension_end() const { return (end_ / step_ + 1) * step_; }
  void extended(std::uint32_t end) { end_ = end; }

  std::uint32_t step() const { return step_; }
  std::uint32_t tail() const { return tail_; }
  std::uint32_t end() const { return end_; }

 private:
  Cluster_runs clean_;
  std::uint32_t tail_ = 0;
  std::uint32_t end_ = 0;
  std::uint32_t step_ = 1;
};

}  // namespace pstorage::ploop
