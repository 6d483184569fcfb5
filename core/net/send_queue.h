// Bytes that wait to be written, as a gather list. No sockets.
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
  /// Largest `head`.
  static constexpr std::size_t head_bytes_max = 128;

  /// A message in the wire format of core/format.md.
  void push(Message message);
  /// `head` is copied, the slices are kept until they are consumed.
  void push(Bytes head, Slice first = {}, Slice second = {});

  bool empty() const { return bytes_ == 0; }
  /// Bytes pushed and not consumed.
  std::size_t bytes() const { return bytes_; }
  /// Fills `vector` with the next bytes in order; answers how many elements it used.
  std::size_t gather(std::span<iovec> vector) const;
  /// The first `bytes` gathered bytes are gone.
  void consume(std::size_t bytes);
  void clear();

 private:
  struct Entry {
    std::array<std::byte, head_bytes_max> head;  // not initialised: only head_bytes of it are used
    std::size_t head_bytes;
    Slice first;
    Slice second;
    std::size_t size() const { return head_bytes + first.size() + second.size(); }
  };

  // A queue in a vector: emptied often, so it need not wrap and allocates only while it grows.
  std::vector<Entry> entries_;
  std::size_t first_ = 0;
  std::size_t first_taken_ = 0;  // bytes of entries_[first_] already consumed
  std::size_t bytes_ = 0;
};

}  // namespace pstorage
