#include "core/net/receive_buffer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/assert.h"

namespace pstorage {

Receive_buffer::Buffers Receive_buffer::prepare() {
  make_room();
  Buffers buffers;
  if (large_filled_ < large_.size())
    buffers.parts[buffers.count++] = large_.mutable_bytes().subspan(large_filled_);
  auto const rest = block_.mutable_bytes().subspan(end_);
  bool const probe = expects_large_ && wanted_ <= probe_bytes;
  buffers.parts[buffers.count++] = probe ? rest.first(std::min(probe_bytes, rest.size())) : rest;
  return buffers;
}

void Receive_buffer::make_room() {
  std::size_t const rest = end_ - begin_;
  if (!block_.empty()) {
    bool const sole_user = block_.is_sole_user();
    if (rest == 0 && sole_user) {
      begin_ = end_ = 0;
      return;
    }
    std::size_t const tail = block_.size() - end_;
    std::size_t const missing = wanted_ > rest ? wanted_ - rest : 0;
    if (tail >= tail_bytes_min && tail >= missing) return;
    if (sole_user) {
      std::memmove(block_.data(), block_.data() + begin_, rest);
      begin_ = 0;
      end_ = rest;
      return;
    }
  }
  // Somebody keeps a part of the old block.
  Slice fresh = Slice::allocate(receive_block_bytes);
  if (rest > 0) std::memcpy(fresh.data(), block_.data() + begin_, rest);
  block_ = std::move(fresh);
  begin_ = 0;
  end_ = rest;
}

void Receive_buffer::commit(std::size_t bytes) {
  auto const taken = std::min(bytes, large_.size() - large_filled_);
  large_filled_ += taken;
  bytes -= taken;
  PS_ASSERT(bytes <= block_.size() - end_);
  end_ += bytes;
}

void Receive_buffer::skip(std::size_t bytes) {
  PS_ASSERT(bytes <= end_ - begin_);
  begin_ += bytes;
  wanted_ = 0;
  expects_large_ = false;
}

Slice Receive_buffer::part(std::size_t at, std::size_t bytes) const {
  if (bytes == 0) return {};
  PS_ASSERT(in_bounds(at, bytes, end_ - begin_));
  return block_.part(begin_ + at, bytes);
}

void Receive_buffer::begin_large(std::size_t bytes) {
  auto const there = view();
  PS_ASSERT(!in_large() && bytes > there.size());
  if (take_) large_ = take_(bytes);
  if (large_.empty()) large_ = Slice::allocate(bytes);
  large_filled_ = there.size();
  if (!there.empty()) std::memcpy(large_.data(), there.data(), there.size());
  skip(there.size());
  expects_large_ = true;
}

Slice Receive_buffer::take_large() {
  PS_ASSERT(in_large() && large_is_complete());
  large_filled_ = 0;
  return std::exchange(large_, {});
}

}  // namespace pstorage
