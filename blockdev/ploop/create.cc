#include "blockdev/ploop/create.h"

#include <algorithm>
#include <cstring>

#include "core/assert.h"

namespace pstorage::ploop {
namespace {

constexpr std::uint64_t piece_bytes = 1u << 20;

/// Header and BAT where entry i is cluster first + i.
Result<void> write_full_table(Blocking_store& store, Header const& header) {
  auto const bytes = header.offset_of(header.first_cluster);
  for (std::uint64_t from = 0; from < bytes; from += piece_bytes) {
    auto piece = Slice::allocate(static_cast<std::size_t>(std::min(piece_bytes, bytes - from)));
    std::memset(piece.data(), 0, piece.size());
    if (from == 0) encode_header(header, piece.mutable_bytes());
    for (auto at = std::max<std::uint64_t>(from, header_bytes); at < from + piece.size(); at += 4) {
      auto const index = static_cast<std::uint32_t>((at - header_bytes) / 4);
      if (index >= header.entries) break;
      store_le(piece.data() + (at - from), header.encode_entry(header.first_cluster + index));
    }
    if (auto const written = store.write(from, piece); !written) return written;
  }
  return success();
}

Result<void> write_zeros(Blocking_store& store, std::uint64_t from, std::uint64_t end) {
  auto zeros = Slice::allocate(piece_bytes);
  std::memset(zeros.data(), 0, zeros.size());
  for (; from < end; from += piece_bytes) {
    auto const length = static_cast<std::size_t>(std::min(piece_bytes, end - from));
    if (auto const written = store.write(from, zeros.part(0, length)); !written) return written;
  }
  return success();
}

Result<void> write_all(Blocking_store& store, Header& header, bool is_preallocated) {
  auto const data = header.offset_of(header.first_cluster);
  auto const end = is_preallocated ? header.offset_of(header.first_cluster + header.entries) : data;
  if (auto const extended = store.extend(end); !extended) return extended;
  if (is_preallocated) {
    header.flags &= ~flag_empty;
    // The zeros are durable before a table says that they are data.
    if (auto const written = write_zeros(store, data, end); !written) return written;
    if (auto const flushed = store.flush(); !flushed) return flushed;
    if (auto const written = write_full_table(store, header); !written) return written;
  } else {
    auto bytes = Slice::allocate(header_bytes);
    encode_header(header, bytes.mutable_bytes());
    if (auto const written = store.write(0, bytes); !written) return written;
  }
  return store.flush();
}

}  // namespace

Outcome<void> create_image(Blocking_store& store, Header header, bool is_preallocated) {
  PS_ASSERT(store.size_bytes() == 0);
  if (auto const written = write_all(store, header, is_preallocated); !written)
    return failure(written.error(), "cannot write the new image: " + written.error().message());
  return success();
}

}  // namespace pstorage::ploop
