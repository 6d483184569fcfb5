#include "core/net/frame_reader.h"

#include <algorithm>
#include <cstring>

#include "core/assert.h"

namespace pstorage {

Frame_reader::Buffers Frame_reader::prepare() {
  make_room();
  Buffers buffers;
  if (!large_.empty() && large_filled_ < large_.size())
    buffers.parts[buffers.count++] = large_.mutable_bytes().subspan(large_filled_);
  buffers.parts[buffers.count++] = block_.mutable_bytes().subspan(end_);
  return buffers;
}

void Frame_reader::make_room() {
  std::size_t const rest = end_ - begin_;
  if (!block_.empty()) {
    bool const sole_user = block_.is_sole_user();
    if (rest == 0 && sole_user) {
      begin_ = end_ = 0;
      return;
    }
    std::size_t const tail = block_.size() - end_;
    std::size_t const needed = wanted_ > rest ? wanted_ - rest : 0;
    if (tail >= tail_bytes_min && tail >= needed) return;
    if (sole_user) {
      std::memmove(block_.data(), block_.data() + begin_, rest);
      begin_ = 0;
      end_ = rest;
      return;
    }
  }
  Slice fresh = Slice::allocate(receive_block_bytes);
  if (rest > 0) std::memcpy(fresh.data(), block_.data() + begin_, rest);
  block_ = std::move(fresh);
  begin_ = 0;
  end_ = rest;
}

void Frame_reader::commit(std::size_t bytes) {
  if (!large_.empty()) {
    auto const taken = std::min(bytes, large_.size() - large_filled_);
    large_filled_ += taken;
    bytes -= taken;
  }
  PS_ASSERT(bytes <= block_.size() - end_);
  end_ += bytes;
}

Frame_reader::Next Frame_reader::next(Message& message) {
  if (!large_.empty()) {
    if (large_filled_ < large_.size()) return Next::more;
    message.header = large_header_.header;
    message.meta = large_.part(0, large_header_.meta_bytes);
    message.data = large_.part(large_header_.meta_bytes, large_header_.data_bytes);
    large_ = {};
    return Next::message;
  }
  auto const available = end_ - begin_;
  if (available < header_bytes) {
    wanted_ = header_bytes;
    return Next::more;
  }
  auto const framed = decode_header(block_.data() + begin_);
  if (!framed) return Next::malformed;
  std::size_t const meta = framed.value().meta_bytes;
  std::size_t const data = framed.value().data_bytes;
  std::size_t const total = header_bytes + meta + data;
  if (available < total) {
    wanted_ = total;
    if (meta + data >= large_payload_bytes) begin_large(framed.value());
    return Next::more;
  }
  auto const payload = begin_ + header_bytes;
  message.header = framed.value().header;
  message.meta = meta > 0 ? block_.part(payload, meta) : Slice{};
  message.data = data > 0 ? block_.part(payload + meta, data) : Slice{};
  begin_ += total;
  wanted_ = 0;
  return Next::message;
}

void Frame_reader::begin_large(Framed_header const& framed) {
  large_header_ = framed;
  large_ = Slice::allocate(std::size_t{framed.meta_bytes} + framed.data_bytes);
  large_filled_ = end_ - begin_ - header_bytes;
  if (large_filled_ > 0)
    std::memcpy(large_.data(), block_.data() + begin_ + header_bytes, large_filled_);
  begin_ = end_;
  wanted_ = 0;
}

}  // namespace pstorage
