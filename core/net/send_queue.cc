#include "core/net/send_queue.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/assert.h"

namespace pstorage {

void Send_queue::push(Message message) {
  PS_ASSERT(message.meta.size() <= meta_bytes_max && message.data.size() <= data_bytes_max);
  Entry& entry = entries_.emplace_back();
  encode_header(message.header, static_cast<std::uint32_t>(message.meta.size()),
                static_cast<std::uint32_t>(message.data.size()), entry.head.data());
  entry.head_bytes = header_bytes;
  if (auto const size = message.meta.size(); size > 0 && size <= inline_meta_bytes) {
    std::memcpy(entry.head.data() + header_bytes, message.meta.data(), size);
    entry.head_bytes += size;
  } else {
    entry.meta = std::move(message.meta);
  }
  entry.data = std::move(message.data);
  bytes_ += entry.size();
}

std::size_t Send_queue::gather(std::span<iovec> vector) const {
  std::size_t count = 0;
  std::size_t skip = first_taken_;
  for (std::size_t i = first_; i < entries_.size(); ++i) {
    Entry const& entry = entries_[i];
    Bytes const parts[] = {{entry.head.data(), entry.head_bytes},
                           entry.meta.bytes(),
                           entry.data.bytes()};
    for (auto const& part : parts) {
      auto const skipped = std::min(skip, part.size());
      skip -= skipped;
      if (skipped == part.size()) continue;
      if (count == vector.size()) return count;
      vector[count++] = {const_cast<std::byte*>(part.data()) + skipped, part.size() - skipped};
    }
  }
  return count;
}

void Send_queue::consume(std::size_t bytes) {
  PS_ASSERT(bytes <= bytes_);
  bytes_ -= bytes;
  first_taken_ += bytes;
  while (first_ < entries_.size() && first_taken_ >= entries_[first_].size()) {
    first_taken_ -= entries_[first_].size();
    entries_[first_].meta = {};
    entries_[first_].data = {};
    ++first_;
  }
  if (first_ == entries_.size()) {
    entries_.clear();
    first_ = 0;
  } else if (first_ >= 1024 && first_ >= entries_.size() / 2) {
    entries_.erase(entries_.begin(), entries_.begin() + static_cast<std::ptrdiff_t>(first_));
    first_ = 0;
  }
}

void Send_queue::clear() {
  entries_.clear();
  first_ = first_taken_ = bytes_ = 0;
}

}  // namespace pstorage
