#include "mds/log/segment.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "core/crc32c.h"

namespace pstorage::mds {
namespace {

constexpr std::uint64_t segment_magic = 0x314c53444d545350;  // "PSTMDSL1"
constexpr std::uint32_t frame_magic = 0x314d5246;            // "FRM1"
constexpr std::uint32_t segment_format = 1;
constexpr std::string_view name_prefix = "segment-";

}  // namespace

std::string segment_name(std::uint64_t sequence) {
  char text[40];
  std::snprintf(text, sizeof text, "log/segment-%016llx",
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

std::vector<std::byte> encode_frame(std::uint64_t salt, std::uint64_t first_index,
                                    std::uint64_t term, std::vector<std::string> const& entries) {
  std::uint64_t payload = 0;
  for (auto const& entry : entries) payload += 4 + entry.size();
  std::vector<std::byte> frame(frame_bytes(payload));
  store_le(frame.data(), frame_magic);
  store_le(frame.data() + 8, salt);
  store_le(frame.data() + 16, first_index);
  store_le(frame.data() + 24, term);
  store_le(frame.data() + 32, static_cast<std::uint32_t>(entries.size()));
  store_le(frame.data() + 36, static_cast<std::uint32_t>(payload));
  std::byte* at = frame.data() + frame_header_bytes;
  for (auto const& entry : entries) {
    store_le(at, static_cast<std::uint32_t>(entry.size()));
    std::copy_n(as_bytes(entry).data(), entry.size(), at + 4);
    at += 4 + entry.size();
  }
  store_le(frame.data() + 4, crc32c(Bytes(frame).subspan(8, frame_header_bytes - 8 + payload)));
  return frame;
}

bool is_frame_magic(Bytes bytes) {
  return bytes.size() >= 4 && load_le<std::uint32_t>(bytes.data()) == frame_magic;
}

Result<Frame_header> decode_frame(std::uint64_t salt, Bytes bytes,
                                  std::vector<Committed_entry>& entries) {
  if (bytes.size() < frame_header_bytes) return Errc::corrupt;
  Frame_header header;
  header.first_index = load_le<std::uint64_t>(bytes.data() + 16);
  header.term = load_le<std::uint64_t>(bytes.data() + 24);
  header.count = load_le<std::uint32_t>(bytes.data() + 32);
  header.payload_bytes = load_le<std::uint32_t>(bytes.data() + 36);
  if (load_le<std::uint32_t>(bytes.data()) != frame_magic ||
      load_le<std::uint64_t>(bytes.data() + 8) != salt || header.count == 0 ||
      header.payload_bytes > bytes.size() - frame_header_bytes ||
      load_le<std::uint32_t>(bytes.data() + 4) !=
          crc32c(bytes.subspan(8, frame_header_bytes - 8 + header.payload_bytes))) {
    return Errc::corrupt;
  }
  Bytes rest = bytes.subspan(frame_header_bytes, header.payload_bytes);
  auto const entries_before = entries.size();
  for (std::uint32_t i = 0; i < header.count; ++i) {
    std::uint32_t const length = rest.size() < 4 ? 0 : load_le<std::uint32_t>(rest.data());
    if (rest.size() < 4 || length > rest.size() - 4) {
      entries.resize(entries_before);
      return Errc::corrupt;
    }
    entries.push_back({header.first_index + i, std::string(as_text(rest.subspan(4, length)))});
    rest = rest.subspan(4 + length);
  }
  return header;
}

}  // namespace pstorage::mds
