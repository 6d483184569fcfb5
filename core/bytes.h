// Little-endian integers in byte buffers. The only place that decodes or encodes them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

namespace pstorage {

using Bytes = std::span<std::byte const>;
using Mutable_bytes = std::span<std::byte>;

static_assert(std::endian::native == std::endian::little, "load/store below would need a swap");

/// Reads a T at `from`, which need not be aligned. The caller has checked the bounds.
template <typename T>
T load_le(std::byte const* from) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/// Writes `value` at `to`, which need not be aligned. The caller has checked the bounds.
template <typename T>
void store_le(std::byte* to, T const& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::memcpy(to, &value, sizeof value);
}

inline Bytes as_bytes(std::string_view text) {
  return {reinterpret_cast<std::byte const*>(text.data()), text.size()};
}

inline std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
}

/// Is [offset, offset + length) inside [0, size)? No overflow.
constexpr bool in_bounds(std::uint64_t offset, std::uint64_t length, std::uint64_t size) {
  return length <= size && offset <= size - length;
}

}  // namespace pstorage
