// Messages that wait to be written, as a gather list. No sockets.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "core/net/message.h"

namespace pstorage {

/// Thread: the owner's loop. Use: push() any number; gather(), write, consume() until empty.
class Send_queue {
 public:
  void push(Message message);
  bool empty() const { return bytes_ == 0; }
  /// Bytes pushed and not consumed.
  std::size_t bytes() const { return bytes_; }
  /// Fills `vector` with the next bytes in order; answers how many elements it used.
  std::size_t gather(std::span<iovec> vector) const;
  /// The first `bytes` gathered bytes are gone.
  void consume(std::size_t bytes);
  void clear();

 private:
  // A small meta part (the checksums of a few blocks) is copied behind the header: one element of
  // the gather list less costs the kernel less than these few bytes.
  static constexpr std::size_t inline_meta_bytes = 64;
  struct Entry {
    std::array<std::byte, header_bytes + inline_meta_bytes> head;
    std::size_t head_bytes = 0;
    Slice meta;
    Slice data;
    std::size_t size() const { return head_bytes + meta.size() + data.size(); }
  };

  // A queue in a vector: emptied often, so it need not wrap and allocates only while it grows.
  std::vector<Entry> entries_;
  std::size_t first_ = 0;
  std::size_t first_taken_ = 0;  // bytes of entries_[first_] already consumed
  std::size_t bytes_ = 0;
};

}  // namespace pstorage
