#include "core/net/send_queue.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/assert.h"

namespace pstorage {

namespace {

// A small meta part (the checksums of a few blocks) is copied behind the header: one element of the
// gather list less costs the kernel less than these few bytes.
constexpr std::size_t inline_meta_bytes = Send_queue::head_bytes_max - header_bytes;

}  // namespace

void Send_queue::push(Message message) {
  PS_ASSERT(message.meta.size() <= meta_bytes_max && message.data.size() <= data_bytes_max);
  Entry& entry = entries_.emplace_back();
  encode_header(message.header, static_cast<std::uint32_t>(message.meta.size()),
                static_cast<std::uint32_t>(message.data.size()), entry.head.data());
  entry.head_bytes = header_bytes;
  take_meta(entry, std::move(message.meta));
  entry.second = std::move(message.data);
  bytes_ += entry.size();
}

void Send_queue::push(Message message, Shared_reference const& reference) {
  PS_ASSERT(message.meta.size() <= meta_bytes_max);
  Entry& entry = entries_.emplace_back();
  encode_header(message.header, static_cast<std::uint32_t>(message.meta.size()),
                shared_reference_bytes, entry.head.data(), true);
  entry.head_bytes = header_bytes;
  take_meta(entry, std::move(message.meta));
  entry.second = Slice::allocate(shared_reference_bytes);
  encode_reference(reference, entry.second.data());
  bytes_ += entry.size();
}

void Send_queue::push(Header const& header, File_descriptor fd) {
  Entry& entry = entries_.emplace_back();
  encode_header(header, 0, 0, entry.head.data());
  entry.head_bytes = header_bytes;
  entry.fd = std::move(fd);
  bytes_ += entry.size();
}

void Send_queue::take_meta(Entry& entry, Slice meta) {
  if (meta.empty() || meta.size() > inline_meta_bytes) {
    entry.first = std::move(meta);
    return;
  }
  std::memcpy(entry.head.data() + entry.head_bytes, meta.data(), meta.size());
  entry.head_bytes += meta.size();
}

int Send_queue::first_fd() const {
  return first_ < entries_.size() && first_taken_ == 0 ? entries_[first_].fd.get() : -1;
}

void Send_queue::push(Bytes head, Slice first, Slice second) {
  PS_ASSERT(head.size() <= head_bytes_max);
  Entry& entry = entries_.emplace_back();
  if (!head.empty()) std::memcpy(entry.head.data(), head.data(), head.size());
  entry.head_bytes = head.size();
  entry.first = std::move(first);
  entry.second = std::move(second);
  bytes_ += entry.size();
}

std::size_t Send_queue::gather(std::span<iovec> vector) const {
  std::size_t count = 0;
  std::size_t skip = first_taken_;
  for (std::size_t i = first_; i < entries_.size(); ++i) {
    Entry const& entry = entries_[i];
    if (entry.fd && count > 0) return count;
    Bytes const parts[] = {
        {entry.head.data(), entry.head_bytes}, entry.first.bytes(), entry.second.bytes()};
    for (auto const& part : parts) {
      auto const skipped = std::min(skip, part.size());
      skip -= skipped;
      if (skipped == part.size()) continue;
      if (count == vector.size()) return count;
      vector[count++] = {const_cast<std::byte*>(part.data()) + skipped, part.size() - skipped};
    }
    if (entry.fd) return count;
  }
  return count;
}

void Send_queue::consume(std::size_t bytes) {
  PS_ASSERT(bytes <= bytes_);
  bytes_ -= bytes;
  first_taken_ += bytes;
  while (first_ < entries_.size() && first_taken_ >= entries_[first_].size()) {
    first_taken_ -= entries_[first_].size();
    entries_[first_].first = {};
    entries_[first_].second = {};
    entries_[first_].fd = {};
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
