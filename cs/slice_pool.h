// Reply buffers without malloc on the data path: blocks are reused once nobody holds a slice of
// them.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "core/buffer.h"

namespace pstorage::cs {

/// Thread: the owner's loop. Small slices are cut from shared blocks, large ones get one of their
/// own.
class Slice_pool {
 public:
  Slice_pool() = default;
  ~Slice_pool() {
    for (Block* block : small_) block->drop_user();
    for (Block* block : large_) block->drop_user();
  }
  Slice_pool(Slice_pool const&) = delete;
  Slice_pool& operator=(Slice_pool const&) = delete;

  /// `take`: memory for a large slice, or an empty one; then the pool's own is used.
  void set_large_source(std::function<Slice(std::size_t)> take) { take_ = std::move(take); }
  /// `size` uninitialised bytes, 64-byte aligned.
  Slice take(std::size_t size) {
    if (size > shared_max) return take_large(size);
    std::size_t const room = (size + 63) / 64 * 64;
    if (current_ == nullptr || block_size - used_ < room) next_small();
    std::byte* const data = current_->data() + used_;
    used_ += room;
    return {current_, data, size};
  }

 private:
  static constexpr std::size_t block_size = 256u << 10;
  static constexpr std::size_t shared_max = 64u << 10;
  static constexpr std::size_t small_blocks_max = 32;
  static constexpr std::size_t large_size = 1u << 20;
  static constexpr std::size_t large_blocks_max = 16;

  static Block* make(std::size_t size) {
    Block* const block = Block::make(size);
    block->add_user();
    return block;
  }
  void next_small() {
    used_ = 0;
    for (std::size_t tries = 0; tries < small_.size(); ++tries) {
      next_ = (next_ + 1) % small_.size();
      if (small_[next_]->users() == 1) {
        current_ = small_[next_];
        return;
      }
    }
    current_ = make(block_size);
    if (small_.size() < small_blocks_max) {
      small_.push_back(current_);
      next_ = small_.size() - 1;
      return;
    }
    // All are held by slow clients: this one takes the place of the oldest.
    next_ = (next_ + 1) % small_.size();
    small_[next_]->drop_user();
    small_[next_] = current_;
  }
  Slice take_large(std::size_t size) {
    if (Slice taken = take_ ? take_(size) : Slice(); !taken.empty()) return taken;
    if (size <= large_size) {
      for (Block* block : large_) {
        if (block->users() == 1) return {block, block->data(), size};
      }
      if (large_.size() < large_blocks_max) {
        large_.push_back(make(large_size));
        return {large_.back(), large_.back()->data(), size};
      }
    }
    return Slice::allocate(size);
  }

  std::function<Slice(std::size_t)> take_;
  std::vector<Block*> small_;
  std::vector<Block*> large_;
  Block* current_ = nullptr;
  std::size_t used_ = block_size;
  std::size_t next_ = 0;
};

}  // namespace pstorage::cs
