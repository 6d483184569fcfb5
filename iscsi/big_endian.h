// Integers as SCSI lays them out. Callers have checked that the bytes exist.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace pstorage::iscsi {

/// The `Bytes` bytes at `at` as one number, the most significant first.
template <std::size_t Bytes>
std::uint64_t get_be(std::span<std::uint8_t const> from, std::size_t at) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < Bytes; ++i) value = value << 8 | from[at + i];
  return value;
}

template <std::size_t Bytes>
void put_be(std::span<std::uint8_t> to, std::size_t at, std::uint64_t value) {
  for (std::size_t i = 0; i < Bytes; ++i) {
    to[at + i] = static_cast<std::uint8_t>(value >> (8 * (Bytes - 1 - i)));
  }
}

}  // namespace pstorage::iscsi
