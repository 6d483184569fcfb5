#include "core/crc32c.h"

#include <isa-l/crc.h>

#include <cstring>

namespace pstorage {
namespace {

#ifdef __x86_64__

// Up to here (headers, tables of a few entries) setting isa-l's vectors up takes longer than the
// processor's own instruction, 8 bytes at a time: 60 bytes in 10 ns instead of 40.
constexpr std::size_t short_bytes_max = 192;

__attribute__((target("sse4.2"))) std::uint32_t short_crc(Bytes bytes, std::uint32_t state) {
  std::byte const* at = bytes.data();
  std::byte const* const end = at + bytes.size();
  std::uint64_t wide = state;
  for (; end - at >= 8; at += 8) {
    std::uint64_t value = 0;
    std::memcpy(&value, at, sizeof(value));
    wide = __builtin_ia32_crc32di(wide, value);
  }
  auto narrow = static_cast<std::uint32_t>(wide);
  if (end - at >= 4) {
    std::uint32_t value = 0;
    std::memcpy(&value, at, sizeof(value));
    narrow = __builtin_ia32_crc32si(narrow, value);
    at += 4;
  }
  for (; at < end; ++at)
    narrow = __builtin_ia32_crc32qi(narrow, std::to_integer<unsigned char>(*at));
  return narrow;
}

bool const has_short_crc = __builtin_cpu_supports("sse4.2") != 0;

#else

constexpr std::size_t short_bytes_max = 0;
constexpr bool has_short_crc = false;
std::uint32_t short_crc(Bytes, std::uint32_t state) { return state; }

#endif

}  // namespace

std::uint32_t crc32c(Bytes bytes, std::uint32_t previous) {
  if (has_short_crc && bytes.size() <= short_bytes_max) return ~short_crc(bytes, ~previous);
  // isa-l takes the raw register and neither inverts before nor after; it does not write.
  auto* data = const_cast<unsigned char*>(reinterpret_cast<unsigned char const*>(bytes.data()));
  return ~crc32_iscsi(data, static_cast<int>(bytes.size()), ~previous);
}

}  // namespace pstorage
