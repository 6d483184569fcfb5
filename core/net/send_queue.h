// Bytes that wait to be written, as a gather list. No sockets.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "core/disk/file_descriptor.h"
#include "core/net/message.h"

namespace pstorage {

/// Thread: the owner's loop. Use: push() any number; gather(), write, consume() until empty.
class Send_queue {
 public:
  /// Largest `head`.
  static constexpr std::size_t head_bytes_max = 128;

  /// A message in the wire format of core/format.md.
  void push(Message message);
  /// The same with its data replaced by `reference`.
  void push(Message message, Shared_reference const& reference);
  /// A header that takes `fd` along.
  void push(Header const& header, File_descriptor fd);
  /// `head` is copied, the slices are kept until they are consumed.
  void push(Bytes head, Slice first = {}, Slice second = {});

  bool empty() const { return bytes_ == 0; }
  /// Bytes pushed and not consumed.
  std::size_t bytes() const { return bytes_; }
  /// The descriptor that goes with the first byte gathered; -1: none.
  int first_fd() const;
  /// Fills `vector` with the next bytes in order; answers how many elements it used. What goes with
  /// a descriptor is gathered alone.
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
    File_descriptor fd;
    std::size_t size() const { return head_bytes + first.size() + second.size(); }
  };

  void take_meta(Entry& entry, Slice meta);

  // A queue in a vector: emptied often, so it need not wrap and allocates only while it grows.
  std::vector<Entry> entries_;
  std::size_t first_ = 0;
  std::size_t first_taken_ = 0;  // bytes of entries_[first_] already consumed
  std::size_t bytes_ = 0;
};

}  // namespace pstorage
