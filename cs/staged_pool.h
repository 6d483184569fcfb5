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
    if (free_ == nullptr) grow();
    Staged* const taken = free_;
    free_ = taken->older;
    taken->older = nullptr;
    return taken;
  }
  void give_back(Staged* entry) {
    *entry = Staged{};
    entry->older = free_;
    free_ = entry;
  }

 private:
  static constexpr std::size_t slab_entries = 512;
  void grow() {
    slabs_.push_back(std::make_unique<Staged[]>(slab_entries));
    for (std::size_t i = 0; i < slab_entries; ++i) {
      slabs_.back()[i].older = free_;
      free_ = &slabs_.back()[i];
    }
  }
  std::vector<std::unique_ptr<Staged[]>> slabs_;
  Staged* free_ = nullptr;
};

}  // namespace pstorage::cs
