#include "cs/layout.h"

#include <gtest/gtest.h>

#include "core/crc32c.h"

namespace pstorage::cs {
namespace {

TEST(Layout, A_chunk_header_decodes_to_what_was_encoded) {
  Chunk_header header;
  header.chunk = {0x1122};
  header.file = {7};
  header.chunk_size = 64u << 20;
  header.version = {3};
  header.last_stamp = Stamp::of({2}, 9);
  header.unclean = true;
  header.damage_seen = 4;
  header.created_lsn = 12345;
  header.stored_pages.set(63);
  std::array<std::byte, chunk_header_bytes> bytes;
  encode_chunk_header(header, bytes.data());
  auto const decoded = decode_chunk_header(bytes.data());
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded.value().chunk, header.chunk);
  EXPECT_EQ(decoded.value().last_stamp, header.last_stamp);
  EXPECT_EQ(decoded.value().stored_pages, header.stored_pages);
  EXPECT_TRUE(decoded.value().unclean);
  EXPECT_FALSE(decoded.value().syncing);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] ^= std::byte{1};
    EXPECT_TRUE(decode_chunk_header(bytes.data()).has_error()) << i;
    bytes[i] ^= std::byte{1};
  }
}

TEST(Layout, A_table_entry_moved_elsewhere_does_not_verify) {
  Table table;
  table.fill(never_written);
  table[5] = {Stamp::of({1}, 8).value, 0xabcdef01, 0};
  std::array<std::byte, page_bytes> bytes;
  encode_table(table, {42}, 2, bytes.data());
  Table decoded;
  decode_table(bytes.data(), {42}, 2, true, decoded);
  EXPECT_EQ(decoded[5].crc, table[5].crc);
  EXPECT_EQ(decoded[6].flags, std::uint32_t{block_hole});
  decode_table(bytes.data(), {43}, 2, true, decoded);
  EXPECT_NE(decoded[5].crc, table[5].crc);
  EXPECT_EQ(decoded[6].flags, std::uint32_t{block_corrupt});
  decode_table(bytes.data(), {42}, 3, true, decoded);
  EXPECT_NE(decoded[5].crc, table[5].crc);
}

TEST(Layout, A_journal_of_version_1_is_read_and_one_of_a_later_release_is_not) {
  std::array<std::byte, super_bytes> bytes;
  Journal_super super;
  super.ring_bytes = 1u << 20;
  encode_super(super, bytes.data());
  EXPECT_EQ(load_le<std::uint32_t>(bytes.data() + 4), 2u);
  for (std::uint32_t const version : {1u, 2u, 3u}) {
    store_le(bytes.data() + 4, version);
    store_le(bytes.data() + 56, crc32c({bytes.data(), 56}));
    EXPECT_EQ(decode_super(bytes.data()).has_value(), version < 3) << version;
  }
}

TEST(Layout, Chunk_names_are_read_back_and_others_are_not) {
  EXPECT_EQ(chunk_name({0x12a}), "chunks/2a/000000000000012a");
  EXPECT_EQ(chunk_of_name("000000000000012a"), Chunk_id{0x12a});
  EXPECT_EQ(chunk_of_name("000000000000012A"), Chunk_id{});
  EXPECT_EQ(chunk_of_name("12a"), Chunk_id{});
}

TEST(Layout, The_data_lies_behind_the_table_at_an_aligned_offset) {
  EXPECT_EQ(data_offset(64u << 20), 327680u);
  EXPECT_EQ(data_offset(64u << 10), 65536u);
  EXPECT_FALSE(is_chunk_size(0));
  EXPECT_FALSE(is_chunk_size(3u << 20));
  EXPECT_FALSE(is_chunk_size(1u << 31));
}

}  // namespace
}  // namespace pstorage::cs
