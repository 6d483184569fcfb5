// Lists of slices that stand for one run of bytes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/buffer.h"

namespace pstorage::ploop {

inline std::uint64_t total(std::vector<Slice> const& slices) {
  std::uint64_t sum = 0;
  for (auto const& slice : slices) sum += slice.size();
  return sum;
}

/// Adds [from, from + length) of what `slices` are one behind the other to `to`. Copies no byte.
inline void append_part(std::vector<Slice>& to, std::vector<Slice> const& slices,
                        std::uint64_t from, std::uint64_t length) {
  for (auto const& slice : slices) {
    if (length == 0) break;
    if (from >= slice.size()) {
      from -= slice.size();
      continue;
    }
    auto const take = std::min<std::uint64_t>(slice.size() - from, length);
    to.push_back(slice.part(static_cast<std::size_t>(from), static_cast<std::size_t>(take)));
    from = 0;
    length -= take;
  }
}

/// One slice with all their bytes.
inline Slice gathered(std::vector<Slice> const& slices) {
  if (slices.size() == 1) return slices.front();
  auto whole = Slice::allocate(static_cast<std::size_t>(total(slices)));
  auto* to = whole.data();
  for (auto const& slice : slices) to = std::copy_n(slice.data(), slice.size(), to);
  return whole;
}

}  // namespace pstorage::ploop
