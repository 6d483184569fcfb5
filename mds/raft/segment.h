// Segment files of the metadata log: names and headers. Layout: mds/format.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/env/disk.h"
#include "core/result.h"

namespace pstorage::mds::raft {

/// Frames begin at multiples of this, so that writing one never touches a durable one.
inline constexpr std::uint64_t frame_alignment = 4096;
/// Largest entry. A map of a 1 PiB file passes through a reply, never through an entry.
inline constexpr std::size_t entry_bytes_max = 4u << 20;

struct Segment_header {
  std::uint64_t salt = 0;      // of this log; frames of another log never parse
  std::uint64_t sequence = 0;  // of the segment, from 1
  std::uint64_t bytes = 0;     // size of the file
};

/// Path in the repository.
std::string segment_name(std::uint64_t sequence);
/// The sequence in a segment's file name; 0 for any other name.
std::uint64_t segment_sequence(std::string const& name);

/// One block of frame_alignment bytes.
std::vector<std::byte> encode_segment_header(Segment_header const& header);
/// Errors: corrupt.
Result<Segment_header> decode_segment_header(Bytes block);

}  // namespace pstorage::mds::raft
