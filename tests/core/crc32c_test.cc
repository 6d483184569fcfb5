#include "core/crc32c.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string_view>
#include <vector>

#include "core/ids.h"

namespace pstorage {
namespace {

/// As RFC 3720 defines it, a bit at a time.
std::uint32_t bit_by_bit(Bytes bytes) {
  std::uint32_t state = ~std::uint32_t{0};
  for (std::byte const byte : bytes) {
    state ^= std::to_integer<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ ((state & 1) != 0 ? 0x82f63b78u : 0);
  }
  return ~state;
}

std::vector<std::byte> pattern(std::size_t size) {
  std::vector<std::byte> bytes(size);
  std::uint32_t state = 1;
  for (auto& byte : bytes)
    byte = static_cast<std::byte>((state = state * 1664525 + 1013904223) >> 24);
  return bytes;
}

TEST(Crc32c, Is_what_the_standard_says) {
  std::string_view const digits = "123456789";
  EXPECT_EQ(crc32c(std::as_bytes(std::span(digits))), 0xe3069283u);
  EXPECT_EQ(crc32c(std::vector<std::byte>(block_bytes)), crc32c_of_zero_block);
  EXPECT_EQ(crc32c({}), 0u);
}

TEST(Crc32c, Is_the_same_at_every_length_and_alignment) {
  auto const bytes = pattern(1024);
  for (std::size_t skip = 0; skip < 9; ++skip) {
    for (std::size_t size = 0; size < 600; ++size) {
      Bytes const part{bytes.data() + skip, size};
      ASSERT_EQ(crc32c(part), bit_by_bit(part)) << skip << "+" << size;
    }
  }
}

TEST(Crc32c, Goes_on_where_it_was_left) {
  auto const bytes = pattern(400);
  Bytes const all{bytes};
  for (std::size_t cut = 0; cut <= all.size(); ++cut) {
    ASSERT_EQ(crc32c(all.subspan(cut), crc32c(all.first(cut))), crc32c(all)) << cut;
  }
}

}  // namespace
}  // namespace pstorage
