// Identifiers of the data model. Types without implicit conversion, so that a chunk is never
// passed where a file is meant.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace pstorage {

/// A value of its own type; `Tag` only tells the types apart.
template <typename Tag, typename Value>
struct Strong_id {
  Value value = 0;
  auto operator<=>(Strong_id const&) const = default;
  explicit operator bool() const { return value != 0; }
};

using Chunk_id = Strong_id<struct Chunk_tag, std::uint64_t>;      // never reused; 0 = none
using File_id = Strong_id<struct File_tag, std::uint64_t>;        // inode number; 0 = none
using Cs_id = Strong_id<struct Cs_tag, std::uint32_t>;            // from 1025; 0 = none
using Mds_id = Strong_id<struct Mds_tag, std::uint32_t>;          // from 1
using Host_id = Strong_id<struct Host_tag, std::uint64_t>;        // /etc/pstorage/host_id
using Session_id = Strong_id<struct Session_tag, std::uint64_t>;  // of an MDS client; 0 = none
using Epoch = Strong_id<struct Epoch_tag, std::uint32_t>;         // of a writer's lease; grows
using Version = Strong_id<struct Version_tag, std::uint32_t>;     // of a chunk's replica set; grows
using Incarnation = Strong_id<struct Incarnation_tag, std::uint32_t>;   // of a CS process; random
using Connection_id = Strong_id<struct Connection_tag, std::uint64_t>;  // never reused in a process

/// Number of a write to one chunk: epoch << 32 | sequence. Stamp 0 = never written.
struct Stamp {
  std::uint64_t value = 0;
  auto operator<=>(Stamp const&) const = default;
  static constexpr Stamp of(Epoch epoch, std::uint32_t sequence) {
    return {std::uint64_t{epoch.value} << 32 | sequence};
  }
  constexpr Epoch epoch() const { return {static_cast<std::uint32_t>(value >> 32)}; }
  constexpr std::uint32_t sequence() const { return static_cast<std::uint32_t>(value); }
};

/// Unit of checksums, stamps and of every data operation between a client and a CS.
inline constexpr std::uint32_t block_bytes = 4096;

}  // namespace pstorage

template <typename Tag, typename Value>
struct std::hash<pstorage::Strong_id<Tag, Value>> {
  std::size_t operator()(pstorage::Strong_id<Tag, Value> const& id) const noexcept {
    // Fibonacci hashing: ids are consecutive, open-addressing tables want the bits spread.
    return static_cast<std::size_t>(std::uint64_t{id.value} * 0x9e3779b97f4a7c15ULL);
  }
};
