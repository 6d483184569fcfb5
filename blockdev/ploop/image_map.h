// Where every cluster of a disk is: the BATs of all its deltas, merged. One lookup a request,
// however long the chain.
#pragma once

#include <cstdint>
#include <vector>

#include "core/assert.h"

namespace pstorage::ploop {

/// Index of a delta in its chain: 0 is the base, the highest one takes the writes.
using Level = std::uint8_t;
/// At most 126 snapshots and the top, as everybody else has it.
inline constexpr std::size_t levels_max = 127;

/// 5 bytes for each cluster of the disk.
class Image_map {
 public:
  static constexpr Level nowhere = 0x7F;

  Image_map() = default;
  explicit Image_map(std::uint32_t entries) : clusters_(entries), levels_(entries, nowhere) {}

  std::uint32_t size() const { return static_cast<std::uint32_t>(clusters_.size()); }
  /// The delta that holds `index`, or nowhere.
  Level level(std::uint32_t index) const {
    return static_cast<Level>(levels_[index] & static_cast<Level>(~busy_bit));
  }
  /// Its place in that delta's file.
  std::uint32_t cluster(std::uint32_t index) const { return clusters_[index]; }
  /// Is it in `top` with nothing under way? The whole check of a steady-state write.
  bool is_settled_in(Level top, std::uint32_t index) const { return levels_[index] == top; }

  void set(std::uint32_t index, Level level, std::uint32_t cluster) {
    clusters_[index] = cluster;
    levels_[index] = static_cast<Level>((levels_[index] & busy_bit) | level);
  }
  void clear(std::uint32_t index) { set(index, nowhere, 0); }

  /// Busy: it is being allocated; requests for it wait.
  bool is_busy(std::uint32_t index) const { return (levels_[index] & busy_bit) != 0; }
  void set_busy(std::uint32_t index, bool busy) {
    levels_[index] = static_cast<Level>(busy ? levels_[index] | busy_bit : level(index));
  }

 private:
  static constexpr Level busy_bit = 0x80;
  std::vector<std::uint32_t> clusters_;
  std::vector<Level> levels_;
};

}  // namespace pstorage::ploop
