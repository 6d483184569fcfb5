// Reference-counted memory: payloads are received once and never copied in user space after that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#include "core/assert.h"
#include "core/bytes.h"

namespace pstorage {

class Block;

/// Whom memory goes back to that was not taken from malloc. Thread: the blocks' owner.
class Block_keeper {
 public:
  /// Nobody uses `block` any more. The keeper may end it.
  virtual void unused(Block& block) = 0;

 protected:
  ~Block_keeper() = default;
};

/// Memory with a count of its users. One thread owns it and all its Slices (the count is not
/// atomic: a locked increment a request would cost more than the rest of the bookkeeping). A helper
/// thread may use the raw bytes while the owner holds a Slice.
class Block {
 public:
  /// Allocates `size` bytes, aligned to 64, uninitialised.
  static Block* make(std::size_t size) {
    void* memory = std::aligned_alloc(alignment, alignment + round_up(size));
    if (memory == nullptr) throw std::bad_alloc();
    return new (memory) Block(static_cast<std::byte*>(memory) + alignment, size, nullptr);
  }
  /// A block over `size` bytes at `data` that goes back to `keeper` when its last user is gone.
  Block(std::byte* data, std::size_t size, Block_keeper* keeper)
      : data_(data), size_(size), keeper_(keeper) {}
  std::byte* data() { return data_; }
  std::size_t size() const { return size_; }
  Block_keeper const* keeper() const { return keeper_; }
  std::uint32_t users() const { return users_; }
  void add_user() { ++users_; }
  void drop_user() {
    PS_ASSERT(users_ > 0);
    if (--users_ != 0) return;
    if (keeper_ != nullptr) return keeper_->unused(*this);
    std::free(this);
  }

 private:
  static constexpr std::size_t alignment = 64;  // of the bytes; the Block itself lies before them
  static constexpr std::size_t round_up(std::size_t size) {
    return (size + alignment - 1) / alignment * alignment;
  }
  std::byte* data_;
  std::size_t size_;
  Block_keeper* keeper_;
  std::uint32_t users_ = 0;
};

/// A run of bytes that keeps its Block alive. Cheap to copy. Empty by default.
class Slice {
 public:
  Slice() = default;
  /// All of `block`.
  explicit Slice(Block* block) : Slice(block, block->data(), block->size()) {}
  Slice(Block* block, std::byte* data, std::size_t size) : block_(block), data_(data), size_(size) {
    if (block_ != nullptr) block_->add_user();
  }
  Slice(Slice const& other) : Slice(other.block_, other.data_, other.size_) {}
  Slice(Slice&& other) noexcept
      : block_(std::exchange(other.block_, nullptr)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  Slice& operator=(Slice other) noexcept {
    std::swap(block_, other.block_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Slice() {
    if (block_ != nullptr) block_->drop_user();
  }

  static Slice allocate(std::size_t size) { return Slice(Block::make(size)); }
  static Slice copy_of(Bytes bytes) {
    Slice slice = allocate(bytes.size());
    if (!bytes.empty()) std::memcpy(slice.data_, bytes.data(), bytes.size());
    return slice;
  }

  std::byte* data() { return data_; }
  std::byte const* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  /// Is it memory of `keeper`?
  bool is_kept_by(Block_keeper const* keeper) const {
    return block_ != nullptr && keeper != nullptr && block_->keeper() == keeper;
  }
  Block* block() const { return block_; }
  /// Does no other Slice use the memory? Then the owner may fill it anew.
  bool is_sole_user() const { return block_ != nullptr && block_->users() == 1; }
  Bytes bytes() const { return {data_, size_}; }
  Mutable_bytes mutable_bytes() { return {data_, size_}; }

  /// The part [offset, offset + length). In bounds, or it aborts.
  Slice part(std::size_t offset, std::size_t length) const {
    PS_ASSERT(in_bounds(offset, length, size_));
    return {block_, data_ + offset, length};
  }

 private:
  Block* block_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace pstorage
