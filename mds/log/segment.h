// Segments and frames of the metadata log on disk. Layout: mds/format.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/env/disk.h"
#include "core/result.h"
#include "mds/log/replicated_log.h"

namespace pstorage::mds {

/// Frames begin at multiples of this, so that writing one never touches a durable one.
inline constexpr std::uint64_t frame_alignment = 4096;
/// Largest entry. A map of a 1 PiB file passes through a reply, never through an entry.
inline constexpr std::size_t entry_bytes_max = 4u << 20;

struct Segment_header {
  std::uint64_t salt = 0;      // of this log; frames of another log never parse
  std::uint64_t sequence = 0;  // of the segment, from 1
  std::uint64_t bytes = 0;     // size of the file
};

struct Frame_header {
  std::uint64_t first_index = 0;
  std::uint64_t term = 0;
  std::uint32_t count = 0;
  std::uint32_t payload_bytes = 0;
};

inline constexpr std::size_t frame_header_bytes = 40;

/// Bytes that a frame with `payload_bytes` takes, padding included.
constexpr std::uint64_t frame_bytes(std::uint64_t payload_bytes) {
  return (frame_header_bytes + payload_bytes + frame_alignment - 1) / frame_alignment *
         frame_alignment;
}

std::string segment_name(std::uint64_t sequence);
/// The sequence in a segment's file name; 0 for any other name.
std::uint64_t segment_sequence(std::string const& name);

/// One block of frame_alignment bytes.
std::vector<std::byte> encode_segment_header(Segment_header const& header);
/// Errors: corrupt.
Result<Segment_header> decode_segment_header(Bytes block);

/// Header, entries and padding: frame_bytes() long.
std::vector<std::byte> encode_frame(std::uint64_t salt, std::uint64_t first_index,
                                    std::uint64_t term, std::vector<std::string> const& entries);
/// Do `bytes` begin like a frame of any log?
bool is_frame_magic(Bytes bytes);
/// Decodes the frame at the start of `bytes` and appends its entries. Errors: corrupt (not a frame
/// of this log, damaged, or its entries do not fit the bytes).
Result<Frame_header> decode_frame(std::uint64_t salt, Bytes bytes,
                                  std::vector<Committed_entry>& entries);

}  // namespace pstorage::mds
