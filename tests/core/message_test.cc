// The wire format of core/format.md, and the stream of messages cut by hand.
#include "core/net/message.h"

#include <gtest/gtest.h>

#include <random>

#include "core/crc32c.h"
#include "core/net/frame_reader.h"
#include "core/net/send_queue.h"

namespace pstorage::test {
namespace {

// core/format.md "Message": one block at 8192 of chunk 0x1122, stamp (7, 9), version 3, request 5.
constexpr unsigned char example[] = {
    0x50, 0x53, 0x54, 0x31, 0x02, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00,
    0x05, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x22, 0x11, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x09, 0x00, 0x00, 0x00, 0x07, 0x00, 0x00, 0x00, 0x00, 0x20, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00,
    0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x09, 0x6f, 0x65, 0xf0};

Header example_header() {
  Header header;
  header.operation = Operation::write;
  header.request_id = 5;
  header.chunk = {0x1122};
  header.stamp = Stamp::of({7}, 9);
  header.offset = 8192;
  header.length = 4096;
  header.version = {3};
  return header;
}

TEST(Message, The_example_of_the_format_decodes) {
  auto const framed = decode_header(reinterpret_cast<std::byte const*>(example));
  ASSERT_TRUE(framed);
  auto const& header = framed.value().header;
  EXPECT_EQ(framed.value().meta_bytes, 4u);
  EXPECT_EQ(framed.value().data_bytes, 4096u);
  EXPECT_EQ(header.operation, Operation::write);
  EXPECT_FALSE(header.is_reply);
  EXPECT_EQ(header.request_id, 5u);
  EXPECT_EQ(header.chunk.value, 0x1122u);
  EXPECT_EQ(header.stamp, Stamp::of({7}, 9));
  EXPECT_EQ(header.offset, 8192u);
  EXPECT_EQ(header.length, 4096u);
  EXPECT_EQ(header.version.value, 3u);
}

TEST(Message, The_example_of_the_format_is_what_we_encode) {
  Header_bytes bytes;
  encode_header(example_header(), 4, 4096, bytes.data());
  EXPECT_EQ(std::memcmp(bytes.data(), example, sizeof example), 0);
}

// core/format.md "Message": a torn block of stamp (7, 9), whose content has the checksum
// 0x01020304.
constexpr unsigned char torn_example[] = {0x09, 0x00, 0x00, 0x00, 0x07, 0x00, 0x00, 0x00,
                                          0x04, 0x03, 0x02, 0x01, 0x06, 0x00, 0x00, 0x00};

TEST(Message, A_torn_block_has_data_a_rotten_one_and_a_hole_have_none) {
  auto record = load_le<Block_record>(reinterpret_cast<std::byte const*>(torn_example));
  EXPECT_EQ(record.stamp, Stamp::of({7}, 9).value);
  EXPECT_EQ(record.crc, 0x01020304u);
  EXPECT_EQ(record.flags, block_corrupt | block_torn);
  EXPECT_TRUE(has_data(record));
  record.flags = block_corrupt;
  EXPECT_FALSE(has_data(record));
  record.flags = block_hole | block_corrupt;
  EXPECT_FALSE(has_data(record));
  record.flags = block_hole;
  EXPECT_FALSE(has_data(record));
  record.flags = 0;
  EXPECT_TRUE(has_data(record));
}

// core/format.md "Shared payloads": 1 MiB at 0x30000, ticket 2.
constexpr unsigned char reference_example[] = {0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00,
                                               0x00, 0x00, 0x10, 0x00, 0x02, 0x00, 0x00, 0x00};

TEST(Message, A_reference_to_shared_memory_takes_the_place_of_the_data) {
  auto const reference = decode_reference(reinterpret_cast<std::byte const*>(reference_example));
  EXPECT_EQ(reference.offset, 0x30000u);
  EXPECT_EQ(reference.size, 1u << 20);
  EXPECT_EQ(reference.ticket, 2u);
  Send_queue queue;
  Message message;
  message.header = example_header();
  message.meta = Slice::allocate(4);
  store_le(message.meta.data(), std::uint32_t{7});
  queue.push(std::move(message), reference);
  ASSERT_EQ(queue.bytes(), header_bytes + 4 + shared_reference_bytes);
  std::array<iovec, 4> vector;
  auto const count = queue.gather(vector);
  Frame_reader reader;
  auto const to = reader.prepare().parts[0];
  std::size_t filled = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::memcpy(to.data() + filled, vector[i].iov_base, vector[i].iov_len);
    filled += vector[i].iov_len;
  }
  EXPECT_EQ(std::memcmp(to.data() + header_bytes + 4, reference_example, 16), 0);
  reader.commit(filled);
  Message got;
  ASSERT_EQ(reader.next(got), Frame_reader::Next::shared);
  EXPECT_EQ(reader.reference().offset, reference.offset);
  EXPECT_EQ(got.header.chunk.value, 0x1122u);
  EXPECT_EQ(load_le<std::uint32_t>(got.meta.data()), 7u);
  EXPECT_TRUE(got.data.empty());
}

TEST(Message, Every_flipped_bit_is_refused) {
  Header_bytes bytes;
  encode_header(example_header(), 4, 4096, bytes.data());
  for (std::size_t bit = 0; bit < header_bytes * 8; ++bit) {
    auto changed = bytes;
    changed[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
    EXPECT_FALSE(decode_header(changed.data())) << bit;
  }
}

void seal(Header_bytes& bytes) { store_le(bytes.data() + 60, crc32c({bytes.data(), 60})); }

TEST(Message, A_right_checksum_does_not_excuse_wrong_fields) {
  Header_bytes valid;
  encode_header(example_header(), 4, 4096, valid.data());
  auto const refused = [&](std::size_t at, auto value) {
    auto bytes = valid;
    store_le(bytes.data() + at, value);
    seal(bytes);
    return !decode_header(bytes.data());
  };
  EXPECT_TRUE(refused(0, message_magic + 1));
  EXPECT_TRUE(refused(4, std::uint16_t{0}));
  EXPECT_TRUE(refused(4, std::uint16_t{11}));
  EXPECT_TRUE(refused(6, std::uint16_t{2}));  // its data is no reference
  EXPECT_TRUE(refused(6, std::uint16_t{4}));
  EXPECT_TRUE(refused(8, meta_bytes_max + 1));
  EXPECT_TRUE(refused(12, data_bytes_max + 1));
  EXPECT_TRUE(refused(40, std::uint32_t{1}));
  EXPECT_TRUE(refused(44, std::uint32_t{4095}));
  EXPECT_FALSE(refused(12, data_bytes_max));
}

TEST(Message, Random_headers_with_right_checksums_never_exceed_the_limits) {
  std::mt19937_64 random(20260101);
  for (int i = 0; i < 20000; ++i) {
    Header_bytes bytes;
    for (auto& byte : bytes) byte = static_cast<std::byte>(random());
    store_le(bytes.data(), message_magic);
    if (i % 2 == 0) {  // most fields right, so that the deeper checks are reached
      store_le(bytes.data() + 4, static_cast<std::uint16_t>(random() % 12));
      store_le(bytes.data() + 6, static_cast<std::uint16_t>(random() % 5));
    }
    seal(bytes);
    auto const framed = decode_header(bytes.data());
    if (!framed) continue;
    EXPECT_LE(framed.value().meta_bytes, meta_bytes_max);
    EXPECT_LE(framed.value().data_bytes, data_bytes_max);
    EXPECT_EQ(framed.value().header.offset % block_bytes, 0u);
  }
}

/// Messages of random sizes through a queue and a reader, cut at random places.
TEST(Message, A_stream_cut_anywhere_gives_the_same_messages) {
  std::mt19937_64 random(7);
  for (int run = 0; run < 20; ++run) {
    Send_queue queue;
    std::vector<Message> sent;
    for (int i = 0; i < 40; ++i) {
      static constexpr std::size_t sizes[] = {0, 1, 4, 64, 65, 4096, 65535, 65536, 262144, 700000};
      Message message;
      message.header.request_id = static_cast<std::uint64_t>(i);
      message.meta = Slice::allocate(sizes[random() % 6]);
      message.data = Slice::allocate(sizes[random() % std::size(sizes)]);
      for (auto* const slice : {&message.meta, &message.data})
        std::generate(
            slice->mutable_bytes().begin(), slice->mutable_bytes().end(),
            [value = random()]() mutable { return static_cast<std::byte>(++value >> 3); });
      sent.push_back(message);
      queue.push(std::move(message));
    }
    Frame_reader reader;
    std::vector<Message> got;
    std::uint64_t const step_max = std::uint64_t{64} << random() % 15;
    while (!queue.empty()) {
      std::array<iovec, 7> vector;
      auto const count = queue.gather(vector);
      ASSERT_GT(count, 0u);
      auto const buffers = reader.prepare();
      std::size_t limit = 1 + random() % step_max;
      std::size_t moved = 0;
      std::size_t part = 0, part_at = 0;
      for (std::size_t i = 0; i < count && limit > 0; ++i) {
        auto const* from = static_cast<std::byte const*>(vector[i].iov_base);
        std::size_t left = std::min(vector[i].iov_len, limit);
        while (left > 0 && part < buffers.count) {
          auto const take = std::min(left, buffers.parts[part].size() - part_at);
          if (take > 0) std::memcpy(buffers.parts[part].data() + part_at, from, take);
          from += take, left -= take, moved += take, part_at += take, limit -= take;
          if (part_at == buffers.parts[part].size()) ++part, part_at = 0;
        }
      }
      queue.consume(moved);
      reader.commit(moved);
      Message message;
      for (;;) {
        auto const next = reader.next(message);
        ASSERT_NE(next, Frame_reader::Next::malformed);
        if (next == Frame_reader::Next::more) break;
        got.push_back(std::move(message));
      }
    }
    ASSERT_EQ(got.size(), sent.size()) << "run " << run;
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].header.request_id, i);
      EXPECT_EQ(as_text(got[i].meta.bytes()), as_text(sent[i].meta.bytes()));
      EXPECT_EQ(as_text(got[i].data.bytes()), as_text(sent[i].data.bytes()));
    }
  }
}

TEST(Message, A_receive_block_nobody_holds_is_used_again) {
  Frame_reader reader;
  auto const first = reader.prepare().parts[0].data();
  Header_bytes bytes;
  encode_header(Header{}, 0, 0, bytes.data());
  for (int i = 0; i < 10; ++i) {
    auto const to = reader.prepare().parts[0];
    EXPECT_EQ(to.data(), first);
    std::memcpy(to.data(), bytes.data(), bytes.size());
    reader.commit(bytes.size());
    Message message;
    EXPECT_EQ(reader.next(message), Frame_reader::Next::message);
    EXPECT_EQ(reader.next(message), Frame_reader::Next::more);
  }
}

}  // namespace
}  // namespace pstorage::test
