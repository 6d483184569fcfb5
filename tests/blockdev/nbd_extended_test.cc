// Extended headers: negotiation, requests beyond 32 bits, replies, what is refused.
#include <gtest/gtest.h>

#include "tests/blockdev/nbd_client.h"

namespace pstorage::nbd::test {
namespace {

constexpr std::uint64_t gib = 1ull << 30;

struct Extended_reply {
  std::uint16_t type = 0;
  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;
  std::string data;
};

class Nbd_extended : public testing::Test {
 protected:
  void go(std::string_view name = "disk") {
    client_.greet();
    EXPECT_EQ(client_.ask(Option::extended_headers), Option_answer::ack);
    EXPECT_EQ(client_.ask(Option::set_meta_context, Client::meta(name, {"base:allocation"})),
              Option_answer::ack);
    EXPECT_EQ(client_.ask(Option::go, Client::info(name)), Option_answer::ack);
  }
  static Wire request(Command command, std::uint64_t cookie, std::uint64_t offset,
                      std::uint64_t length, std::uint16_t flags = 0) {
    return Wire()
        .put(magic_extended_request)
        .put(flags)
        .put(static_cast<std::uint16_t>(command))
        .put(cookie)
        .put(offset)
        .put(length);
  }
  static Wire write(std::uint64_t cookie, std::uint64_t offset, std::uint64_t length, int value) {
    return request(Command::write, cookie, offset, length, command_payload).fill(length, value);
  }
  Extended_reply take_reply() {
    client_.loop.run();
    EXPECT_EQ(client_.take<std::uint32_t>(), magic_extended_reply);
    EXPECT_EQ(client_.take<std::uint16_t>(), chunk_done);
    Extended_reply reply;
    reply.type = client_.take<std::uint16_t>();
    reply.cookie = client_.take<std::uint64_t>();
    reply.offset = client_.take<std::uint64_t>();
    reply.data = client_.take(client_.take<std::uint64_t>());
    return reply;
  }
  Error error_for(Wire const& wire) {
    client_.send(wire);
    auto const reply = take_reply();
    if (reply.type != static_cast<std::uint16_t>(Chunk_type::error)) {
      EXPECT_EQ(reply.type, static_cast<std::uint16_t>(Chunk_type::none));
      return Error::none;
    }
    return static_cast<Error>(load_be<std::uint32_t>(as_bytes(reply.data).data()));
  }
  /// Pairs of length and flags.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> status(std::uint64_t offset,
                                                              std::uint64_t length,
                                                              std::uint16_t flags = 0) {
    client_.send(request(Command::block_status, 9, offset, length, flags));
    auto const reply = take_reply();
    EXPECT_EQ(reply.type, static_cast<std::uint16_t>(Chunk_type::block_status_extended));
    EXPECT_EQ(reply.offset, offset);
    auto const bytes = as_bytes(reply.data);
    EXPECT_EQ(load_be<std::uint32_t>(bytes.data()), allocation_context);
    auto const count = load_be<std::uint32_t>(bytes.data() + 4);
    EXPECT_EQ(bytes.size(), 8 + 16 * std::size_t{count});
    std::vector<std::pair<std::uint64_t, std::uint64_t>> runs;
    for (std::size_t at = 8; at + 16 <= bytes.size(); at += 16)
      runs.emplace_back(load_be<std::uint64_t>(bytes.data() + at),
                        load_be<std::uint64_t>(bytes.data() + at + 8));
    return runs;
  }

  Client client_;
};

TEST_F(Nbd_extended, They_are_chosen_once_and_include_structured_replies) {
  client_.greet();
  EXPECT_EQ(client_.ask(Option::extended_headers, "x"), Option_answer::err_invalid);
  EXPECT_EQ(client_.ask(Option::structured_reply), Option_answer::ack);
  EXPECT_EQ(client_.ask(Option::extended_headers), Option_answer::ack);
  EXPECT_EQ(client_.ask(Option::extended_headers), Option_answer::err_invalid);
  EXPECT_EQ(client_.ask(Option::structured_reply), Option_answer::err_extended_headers);
  EXPECT_EQ(client_.ask(Option::set_meta_context, Client::meta("disk", {"base:allocation"})),
            Option_answer::ack);
  EXPECT_EQ(client_.ask(Option::go, Client::info("disk")), Option_answer::ack);
  EXPECT_EQ(status(0, 4096).size(), 1u);
}

TEST_F(Nbd_extended, Export_name_after_them_hangs_up) {
  client_.greet();
  EXPECT_EQ(client_.ask(Option::extended_headers), Option_answer::ack);
  client_.send(Client::option(Option::export_name, "disk"));
  client_.loop.run();
  EXPECT_TRUE(client_.session->is_over());
}

TEST_F(Nbd_extended, Every_reply_has_the_long_header_and_the_requests_offset) {
  go();
  EXPECT_EQ(error_for(write(1, 4095, 4099, 'a')), Error::none);
  client_.send(request(Command::read, 2, 4094, 4101));
  auto const read = take_reply();
  EXPECT_EQ(read.type, static_cast<std::uint16_t>(Chunk_type::offset_data));
  EXPECT_EQ(read.cookie, 2u);
  EXPECT_EQ(read.offset, 4094u);
  EXPECT_EQ(load_be<std::uint64_t>(as_bytes(read.data).data()), 4094u);
  EXPECT_EQ(read.data.substr(8),
            std::string(1, '\0') + std::string(4099, 'a') + std::string(1, '\0'));
  client_.send(request(Command::flush, 3, 0, 0));
  auto const flush = take_reply();
  EXPECT_EQ(flush.type, static_cast<std::uint16_t>(Chunk_type::none));
  EXPECT_TRUE(flush.data.empty());
  client_.send(request(Command::read, 4, 1u << 20, 1));
  auto const refused = take_reply();
  EXPECT_EQ(refused.type, static_cast<std::uint16_t>(Chunk_type::error));
  EXPECT_EQ(refused.offset, 1u << 20);
}

TEST_F(Nbd_extended, Large_payloads_in_small_pieces_arrive_whole) {
  go();
  client_.send(write(7, 100, 500'000, 'L'), 10'000);
  EXPECT_EQ(take_reply().cookie, 7u);
  client_.send(request(Command::read, 9, 99, 500'002), 1);
  EXPECT_EQ(take_reply().data.substr(8),
            std::string(1, '\0') + std::string(500'000, 'L') + std::string(1, '\0'));
}

TEST_F(Nbd_extended, One_request_covers_more_than_32_bits) {
  auto& large = client_.provider.add("large", 10 * gib);
  go("large");
  EXPECT_EQ(status(0, 10 * gib),
            (std::vector<std::pair<std::uint64_t, std::uint64_t>>{{10 * gib, 3}}));
  EXPECT_EQ(error_for(write(1, 9 * gib, 8192, 'x')), Error::none);
  EXPECT_EQ(status(4096, 10 * gib - 4096), (std::vector<std::pair<std::uint64_t, std::uint64_t>>{
                                               {9 * gib - 4096, 3}, {8192, 0}, {gib - 8192, 3}}));
  EXPECT_EQ(status(4096, 10 * gib - 4096, command_req_one),
            (std::vector<std::pair<std::uint64_t, std::uint64_t>>{{9 * gib - 4096, 3}}));
  // Steps end where blocks do: those at both edges stay, nothing else does.
  EXPECT_EQ(error_for(write(2, 4 * gib - 8192, 16384, 'y')), Error::none);
  EXPECT_EQ(error_for(request(Command::trim, 3, 100, 9 * gib)), Error::none);
  EXPECT_EQ(large.blocks.size(), 2u);
  EXPECT_EQ(error_for(request(Command::write_zeroes, 4, 0, 10 * gib, command_fua)), Error::none);
  EXPECT_EQ(large.blocks.size(), 0u);
  EXPECT_EQ(error_for(request(Command::trim, 5, 1, 10 * gib)), Error::invalid);
  EXPECT_EQ(error_for(request(Command::write_zeroes, 6, ~0ull, ~0ull)), Error::no_space);
}

TEST_F(Nbd_extended, Payload_where_none_belongs_is_skipped_and_refused) {
  go();
  EXPECT_EQ(error_for(request(Command::read, 1, 0, 4096, command_payload).fill(4096, 1)),
            Error::invalid);
  EXPECT_EQ(error_for(request(Command::block_status, 2, 0, 12, command_payload).fill(12, 1)),
            Error::invalid);
  EXPECT_EQ(error_for(write(3, 0, 4096, 1)), Error::none);
}

TEST_F(Nbd_extended, Too_large_writes_are_skipped_and_absurd_ones_hang_up) {
  go();
  std::uint64_t const length = payload_bytes_max + 1;
  client_.send(request(Command::write, 1, 0, length, command_payload));
  for (std::uint64_t sent = 0; sent < length; sent += gib / 256)
    client_.send(Wire().fill(std::min(gib / 256, length - sent), 0));
  auto const refused = take_reply();
  EXPECT_EQ(refused.type, static_cast<std::uint16_t>(Chunk_type::error));
  EXPECT_EQ(error_for(write(2, 0, 4096, 1)), Error::none);
  EXPECT_EQ(error_for(request(Command::read, 3, 0, payload_bytes_max + 1ull)), Error::invalid);
  client_.send(request(Command::write, 4, 0, 1ull << 60, command_payload));
  EXPECT_TRUE(client_.session->is_over());
}

TEST_F(Nbd_extended, Each_kind_of_header_is_wrong_where_the_other_was_agreed) {
  go();
  client_.send(Client::request(Command::flush, 1, 0, 0).fill(4, 0));
  EXPECT_TRUE(client_.session->is_over());
  Client compact;
  compact.go();
  compact.send(request(Command::flush, 1, 0, 0));
  EXPECT_TRUE(compact.session->is_over());
}

}  // namespace
}  // namespace pstorage::nbd::test
