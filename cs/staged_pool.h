// Staged blocks without malloc: slabs and a free list.
#pragma once

#include <memory>
#include <vector>

#include "cs/chunk.h"

namespace pstorage::cs {

/// Thread: the owner's loop.
class Staged_pool {
 public:
  Staged* take() {
    if (free_.empty()) grow();
    Staged* const taken = free_.back();
    free_.pop_back();
    // A large write takes 256 of them, each a cache miss unless it is asked for ahead.
    if (free_.size() > prefetch_ahead) {
      auto const* const next = reinterpret_cast<std::byte*>(free_[free_.size() - prefetch_ahead]);
      __builtin_prefetch(next, 1);
      __builtin_prefetch(next + 64, 1);
    }
    return taken;
  }
  void give_back(Staged* entry) {
    *entry = Staged{};
    free_.push_back(entry);
  }

 private:
  static constexpr std::size_t slab_entries = 512;
  static constexpr std::size_t prefetch_ahead = 4;
  void grow() {
    slabs_.push_back(std::make_unique<Staged[]>(slab_entries));
    for (std::size_t i = 0; i < slab_entries; ++i) free_.push_back(&slabs_.back()[i]);
  }
  std::vector<std::unique_ptr<Staged[]>> slabs_;
  std::vector<Staged*> free_;
};

}  // namespace pstorage::cs
