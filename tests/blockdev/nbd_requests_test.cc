// Transmission: commands, errors, limits.
#include <gtest/gtest.h>

#include "tests/blockdev/nbd_client.h"

namespace pstorage::nbd::test {
namespace {

using namespace std::string_literals;

Wire write_request(std::uint64_t cookie, std::uint64_t offset, std::uint32_t length, int value,
                   std::uint16_t flags = 0) {
  return Client::request(Command::write, cookie, offset, length, flags).fill(length, value);
}

TEST(Nbd_requests, What_is_written_is_read_at_any_alignment) {
  for (bool const structured : {false, true}) {
    Client client;
    client.go(structured);
    EXPECT_EQ(client.error_for(write_request(1, 4095, 4099, 'a')), Error::none);
    client.send(Client::request(Command::read, 2, 4094, 4101));
    auto const reply = client.take_reply(4101);
    EXPECT_EQ(reply.cookie, 2u);
    auto const data = structured ? reply.data.substr(8) : reply.data;
    EXPECT_EQ(data, std::string(1, '\0') + std::string(4099, 'a') + std::string(1, '\0'));
    EXPECT_EQ(reply.is_chunk, structured);
  }
}

TEST(Nbd_requests, Large_payloads_in_small_pieces_arrive_whole) {
  Client client;
  client.go();
  client.send(write_request(7, 100, 500'000, 'L'), 10'000);
  client.send(write_request(8, 600'100, 65'536, 'M'), 70'000);
  EXPECT_EQ(client.take_reply().cookie, 7u);
  EXPECT_EQ(client.take_reply().cookie, 8u);
  client.send(Client::request(Command::read, 9, 99, 600'000));
  auto const data = client.take_reply().data.substr(8);
  EXPECT_EQ(data.substr(0, 500'002), std::string(1, '\0') + std::string(500'000, 'L') + '\0');
  EXPECT_EQ(data.substr(600'000 - 2), "\0\0"s);
}

TEST(Nbd_requests, Many_requests_in_one_read_are_all_answered_in_order) {
  Client client;
  client.go();
  Wire all;
  for (std::uint64_t i = 0; i < 50; ++i)
    all.text(write_request(i, i * 4096, 4096, static_cast<int>(i)).str());
  client.send(all);
  for (std::uint64_t i = 0; i < 50; ++i) EXPECT_EQ(client.take_reply().cookie, i);
  EXPECT_EQ(client.disk.blocks.size(), 50u);
}

TEST(Nbd_requests, Flush_and_fua_reach_the_volume) {
  Client client;
  client.go();
  EXPECT_EQ(client.error_for(write_request(1, 0, 4096, 1, command_fua)), Error::none);
  EXPECT_EQ(client.disk.fua_writes, 1u);
  EXPECT_EQ(client.error_for(Client::request(Command::flush, 2, 0, 0)), Error::none);
  EXPECT_EQ(client.disk.flushes, 1u);
  EXPECT_EQ(client.error_for(Client::request(Command::flush, 2, 1, 0)), Error::invalid);
  EXPECT_EQ(client.error_for(Client::request(Command::flush, 2, 0, 1)), Error::invalid);
}

TEST(Nbd_requests, Trim_keeps_the_edges_and_write_zeroes_does_not) {
  Client client;
  client.go();
  client.error_for(write_request(1, 0, 16384, 'x'));
  EXPECT_EQ(client.error_for(Client::request(Command::trim, 2, 100, 8192)), Error::none);
  EXPECT_EQ(client.disk.blocks.size(), 3u) << "only block 1 lies inside";
  EXPECT_EQ(client.error_for(Client::request(Command::write_zeroes, 3, 100, 8192)), Error::none);
  client.send(Client::request(Command::read, 4, 0, 16384));
  auto const data = client.take_reply().data.substr(8);
  EXPECT_EQ(data, std::string(100, 'x') + std::string(8192, '\0') + std::string(8092, 'x'));
}

TEST(Nbd_requests, Zeroes_without_holes_take_space) {
  Client client;
  client.go();
  auto const plain = Client::request(Command::write_zeroes, 1, 0, 1u << 20, command_no_hole);
  EXPECT_EQ(client.error_for(plain), Error::none);
  EXPECT_EQ(client.disk.blocks.size(), 256u);
  EXPECT_EQ(client.error_for(Client::request(Command::write_zeroes, 1, 0, 4096,
                                             command_no_hole | command_fast_zero)),
            Error::unsupported);
  EXPECT_EQ(
      client.error_for(Client::request(Command::write_zeroes, 1, 0, 1u << 20, command_fast_zero)),
      Error::none);
  EXPECT_TRUE(client.disk.blocks.empty());
}

TEST(Nbd_requests, Block_status_tells_holes) {
  Client client;
  client.go();
  client.error_for(write_request(1, 8192, 4096, 1));
  client.send(Client::request(Command::block_status, 2, 0, 20480));
  EXPECT_EQ(client.take_reply().data,
            Wire().put(1u).put(8192u).put(3u).put(4096u).put(0u).put(8192u).put(3u).str());
  client.send(Client::request(Command::block_status, 3, 100, 20000, command_req_one));
  EXPECT_EQ(client.take_reply().data, Wire().put(1u).put(8092u).put(3u).str());
  EXPECT_EQ(client.error_for(Client::request(Command::block_status, 4, 0, 0)), Error::invalid);
}

TEST(Nbd_requests, Cache_is_answered) {
  Client client;
  client.go();
  EXPECT_EQ(client.error_for(Client::request(Command::cache, 1, 0, 1u << 20)), Error::none);
}

TEST(Nbd_requests, A_client_may_use_what_was_added_while_it_was_connected) {
  Client client;
  client.go();
  std::uint64_t const old_size = 1u << 20;
  EXPECT_EQ(client.error_for(write_request(1, old_size, 4096, 'x')), Error::no_space);
  client.disk.size = 2 * old_size;
  // Somebody else opens it, and with that the server hears of its size.
  client.exports.acquire("disk", [&client](Outcome<client::Volume*> const& volume) {
    if (volume.has_value()) client.exports.release(*volume.value());
  });
  client.loop.run();
  EXPECT_EQ(client.error_for(write_request(2, old_size, 4096, 'x')), Error::none);
  EXPECT_EQ(client.error_for(write_request(3, 2 * old_size, 4096, 'x')), Error::no_space);
}

TEST(Nbd_requests, What_lies_outside_is_refused) {
  Client client;
  client.go();
  std::uint64_t const size = 1u << 20;
  for (std::uint64_t const offset : {size, size - 1, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    EXPECT_EQ(client.error_for(Client::request(Command::read, 1, offset, 2)), Error::invalid);
    EXPECT_EQ(client.error_for(write_request(1, offset, 2, 1)), Error::no_space);
    EXPECT_EQ(client.error_for(Client::request(Command::trim, 1, offset, 2)), Error::invalid);
    EXPECT_EQ(client.error_for(Client::request(Command::cache, 1, offset, 2)), Error::invalid);
    EXPECT_EQ(client.error_for(Client::request(Command::block_status, 1, offset, 2)),
              Error::invalid);
    EXPECT_EQ(client.error_for(Client::request(Command::write_zeroes, 1, offset, 2)),
              Error::no_space);
  }
}

TEST(Nbd_requests, Requests_of_no_bytes_do_nothing) {
  Client client;
  client.go();
  client.send(Client::request(Command::read, 5, 10, 0));
  auto const reply = client.take_reply();
  EXPECT_EQ(reply.error, 0u);
  EXPECT_EQ(reply.type, static_cast<std::uint16_t>(Chunk_type::none));
  EXPECT_EQ(client.error_for(Client::request(Command::write, 6, 0, 0)), Error::none);
  EXPECT_EQ(client.error_for(Client::request(Command::trim, 6, 0, 0)), Error::none);
}

TEST(Nbd_requests, Unknown_commands_and_flags_are_refused) {
  Client client;
  client.go();
  EXPECT_EQ(client.error_for(Client::request(static_cast<Command>(9), 1, 0, 4096)), Error::invalid);
  EXPECT_EQ(client.error_for(Client::request(static_cast<Command>(0xffff), 1, 0, 4096)),
            Error::invalid);
  EXPECT_EQ(client.error_for(Client::request(Command::read, 1, 0, 4096, command_no_hole)),
            Error::invalid);
  EXPECT_EQ(client.error_for(write_request(1, 0, 4096, 1, 0x8000)), Error::invalid);
  EXPECT_EQ(client.error_for(Client::request(Command::read, 1, 0, 4096, command_fua)), Error::none);
}

TEST(Nbd_requests, Too_large_requests_are_refused_and_their_payload_skipped) {
  Client client;
  client.disk.size = 1u << 30;
  client.go();
  EXPECT_EQ(client.error_for(Client::request(Command::read, 1, 0, payload_bytes_max + 1)),
            Error::invalid);
  client.send(Client::request(Command::write, 2, 0, payload_bytes_max + 1));
  std::vector<std::byte> const piece(100'001);
  for (std::size_t sent = 0; sent <= payload_bytes_max;) {
    auto const take = std::min(piece.size(), std::size_t{payload_bytes_max} + 1 - sent);
    client.send(Bytes(piece.data(), take));
    sent += take;
  }
  EXPECT_EQ(client.take_reply().error, static_cast<std::uint32_t>(Error::invalid));
  EXPECT_EQ(client.error_for(write_request(3, 0, 4096, 1)), Error::none) << "still in step";
  EXPECT_EQ(client.disk.blocks.size(), 1u);
}

TEST(Nbd_requests, A_wrong_magic_hangs_up) {
  Client client;
  client.go();
  client.send(Wire().fill(28, 0x25));
  EXPECT_TRUE(client.session->is_over());
}

TEST(Nbd_requests, Disconnect_answers_what_is_under_way_first) {
  Client client;
  client.go();
  client.send(write_request(1, 0, 4096, 1));
  client.send(Client::request(Command::disconnect, 0, 0, 0));
  EXPECT_FALSE(client.session->is_over());
  EXPECT_EQ(client.take_reply().cookie, 1u);
  EXPECT_TRUE(client.session->is_over());
}

TEST(Nbd_requests, Too_many_requests_wait_in_the_socket) {
  Session_limits limits;
  limits.requests_max = 4;
  Client client(limits);
  client.go();
  Wire all;
  for (std::uint64_t i = 0; i < 20; ++i) all.text(write_request(i, 0, 512, 1).str());
  client.send(all);
  EXPECT_FALSE(client.session->wants_input());
  for (std::uint64_t i = 0; i < 20; ++i) EXPECT_EQ(client.take_reply().cookie, i);
  EXPECT_TRUE(client.session->wants_input());
}

TEST(Nbd_requests, Replies_that_nobody_takes_hold_back_new_requests) {
  Session_limits limits;
  limits.bytes_max = 100'000;
  Client client(limits);
  client.go();
  Wire all;
  for (std::uint64_t i = 0; i < 10; ++i)
    all.text(Client::request(Command::read, i, 0, 60'000).str());
  client.send(all);
  client.loop.run();
  EXPECT_FALSE(client.session->wants_input());
  EXPECT_LT(client.session->output().bytes(), 200'000u);
  for (std::uint64_t i = 0; i < 10; ++i) EXPECT_EQ(client.take_reply().cookie, i);
}

TEST(Nbd_requests, Errors_of_the_volume_have_their_numbers) {
  Client client;
  client.go();
  client.disk.fail_with = Errc::no_space;
  EXPECT_EQ(client.error_for(write_request(1, 0, 1, 1)), Error::no_space);
  client.disk.fail_with = Errc::corrupt;
  EXPECT_EQ(client.error_for(Client::request(Command::read, 1, 0, 1)), Error::io);
  EXPECT_EQ(client.error_for(Client::request(Command::block_status, 1, 0, 4096)), Error::io);
  client.disk.fail_with = Errc::lost_writes;
  EXPECT_EQ(client.error_for(Client::request(Command::flush, 1, 0, 0)), Error::io);
  client.disk.fail_with = {};
  EXPECT_EQ(client.error_for(Client::request(Command::flush, 1, 0, 0)), Error::none);
}

TEST(Nbd_requests, A_lost_lease_ends_the_session_and_the_next_client_opens_anew) {
  Client client;
  client.go();
  client.send(write_request(1, 0, 1, 1));
  client.disk.fail_with = Errc::stale_epoch;
  client.send(write_request(2, 0, 1, 1));
  EXPECT_EQ(client.take_reply().error, static_cast<std::uint32_t>(Error::shutdown));
  EXPECT_EQ(client.take_reply().error, static_cast<std::uint32_t>(Error::shutdown));
  EXPECT_TRUE(client.session->is_over());
  client.disk.fail_with = {};
  client.session->disconnected();
  client.connect();
  client.go();
  EXPECT_EQ(client.disk.opened, 2u);
  EXPECT_EQ(client.error_for(write_request(3, 0, 1, 1)), Error::none);
}

TEST(Nbd_requests, A_client_that_vanishes_waits_for_its_requests) {
  Client client;
  client.go();
  client.send(write_request(1, 0, 4096, 1));
  client.send(Client::request(Command::read, 2, 0, 4096));
  client.session->disconnected();
  EXPECT_FALSE(client.session->is_idle());
  client.loop.run();
  EXPECT_TRUE(client.session->is_idle());
  EXPECT_TRUE(client.session->output().empty());
}

}  // namespace
}  // namespace pstorage::nbd::test
