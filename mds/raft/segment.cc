#include "mds/raft/segment.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "core/crc32c.h"

namespace pstorage::mds::raft {
namespace {

constexpr std::uint64_t segment_magic = 0x314c53444d545350;  // "PSTMDSL1"
constexpr std::uint32_t segment_format = 1;
constexpr std::string_view name_prefix = "segment-";

}  // namespace

std::string segment_name(std::uint64_t sequence) {
  char text[40];
  std::snprintf(text, sizeof text, "raft/segment-%016llx",
                static_cast<unsigned long long>(sequence));
  return text;
}

std::uint64_t segment_sequence(std::string const& name) {
  if (name.size() != name_prefix.size() + 16 || !name.starts_with(name_prefix)) return 0;
  std::uint64_t sequence = 0;
  char const* const end = name.data() + name.size();
  auto const parsed = std::from_chars(name.data() + name_prefix.size(), end, sequence, 16);
  return parsed.ec == std::errc() && parsed.ptr == end ? sequence : 0;
}

std::vector<std::byte> encode_segment_header(Segment_header const& header) {
  std::vector<std::byte> block(frame_alignment);
  store_le(block.data(), segment_magic);
  store_le(block.data() + 8, segment_format);
  store_le(block.data() + 16, header.salt);
  store_le(block.data() + 24, header.sequence);
  store_le(block.data() + 32, header.bytes);
  store_le(block.data() + 12, crc32c(Bytes(block).subspan(16)));
  return block;
}

Result<Segment_header> decode_segment_header(Bytes block) {
  if (block.size() < frame_alignment) return Errc::corrupt;
  if (load_le<std::uint64_t>(block.data()) != segment_magic ||
      load_le<std::uint32_t>(block.data() + 8) != segment_format ||
      load_le<std::uint32_t>(block.data() + 12) !=
          crc32c(block.subspan(16, frame_alignment - 16))) {
    return Errc::corrupt;
  }
  Segment_header header;
  header.salt = load_le<std::uint64_t>(block.data() + 16);
  header.sequence = load_le<std::uint64_t>(block.data() + 24);
  header.bytes = load_le<std::uint64_t>(block.data() + 32);
  if (header.bytes < 2 * frame_alignment || header.bytes % frame_alignment != 0) {
    return Errc::corrupt;
  }
  return header;
}

}  // namespace pstorage::mds::raft
