// Payloads that a peer on the same host reads where they lie.
#include "core/net/shared_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <tuple>

#include "tests/core/network_fixture.h"

namespace pstorage::test {
namespace {

constexpr std::size_t mib = 1u << 20;

Runtime_options sharing(std::size_t bytes, bool encryption = false) {
  auto result = options();
  result.shared_payload_bytes = bytes;
  result.identity.encryption = encryption;
  return result;
}

bool is_all(Slice const& slice, std::byte value) {
  return std::all_of(slice.bytes().begin(), slice.bytes().end(),
                     [value](std::byte one) { return one == value; });
}

class Shared_payload : public testing::Test {
 protected:
  void start(bool is_unix = true, bool encryption = false, std::size_t bytes = 4 * mib) {
    pair = std::make_unique<Pair>(sharing(bytes, encryption), sharing(bytes));
    Address at;
    if (is_unix)
      at.unix_path = directory.path("socket");
    else
      at.host = "127.0.0.1";
    auto const listened = pair->server.network().listen(at, pair->server_side);
    ASSERT_TRUE(listened);
    address = listened.value();
    pair->server_side.react = [this](Connection_id, Message& message) {
      kept.push_back(std::move(message.data));
    };
    connect();
  }
  void connect() {
    auto const count = pair->server_side.connected.size() + 1;
    connection = pair->client.network().connect(address, pair->client_side);
    ASSERT_TRUE(pair->turn_until([&] {
      return pair->server_side.connected.size() == count &&
             pair->client_side.connected.size() == count;
    }));
  }
  /// A payload of `bytes`, all `value`, sent; what the sender keeps of it.
  Slice send(std::size_t bytes, std::byte value) {
    Slice data = pair->client.network().take_payload(bytes);
    if (data.empty()) data = Slice::allocate(bytes);
    std::fill_n(data.data(), bytes, value);
    Message message;
    message.header.operation = Operation::write;
    message.header.request_id = 1;
    message.meta = Slice::allocate(1024);
    std::fill_n(message.meta.data(), 1024, std::byte{9});
    message.data = data;
    pair->client.network().send(connection, std::move(message));
    return data;
  }

  Temporary_directory directory;
  std::unique_ptr<Pair> pair;
  std::vector<Slice> kept;  // by the receiver
  Address address;
  Connection_id connection;
};

TEST_F(Shared_payload, Is_not_copied_on_a_unix_socket) {
  start();
  auto mine = send(mib, std::byte{5});
  ASSERT_TRUE(pair->turn_until([&] { return kept.size() == 1; }));
  ASSERT_EQ(kept[0].size(), mib);
  EXPECT_TRUE(is_all(kept[0], std::byte{5}));
  std::fill_n(mine.data(), mib, std::byte{6});
  EXPECT_TRUE(is_all(kept[0], std::byte{6}));
}

TEST_F(Shared_payload, Is_copied_on_tcp_and_where_all_is_encrypted) {
  for (bool const is_unix : {false, true}) {
    kept.clear();
    start(is_unix, is_unix);
    auto mine = send(mib, std::byte{5});
    ASSERT_TRUE(pair->turn_until([&] { return kept.size() == 1; }));
    std::fill_n(mine.data(), mib, std::byte{6});
    EXPECT_TRUE(is_all(kept[0], std::byte{5}));
    kept.clear();
    pair.reset();
  }
}

TEST_F(Shared_payload, Memory_comes_back_when_the_receiver_needs_it_no_more) {
  start();
  for (int i = 0; i < 200; ++i) {
    auto const value = static_cast<std::byte>(i);
    auto mine = send(mib + 4096 * static_cast<std::size_t>(i % 3), value);
    ASSERT_FALSE(pair->client.network().take_payload(mib).empty()) << i;
    mine = {};
    ASSERT_TRUE(pair->turn_until([&] { return kept.size() == 1; }));
    EXPECT_TRUE(is_all(kept[0], value));
    kept.clear();
    pair->turn(2);
  }
}

TEST_F(Shared_payload, Where_there_is_no_room_payloads_are_sent_as_ever) {
  start();
  for (int i = 0; i < 12; ++i) send(mib, static_cast<std::byte>(i));
  EXPECT_TRUE(pair->client.network().take_payload(mib).empty());
  ASSERT_TRUE(pair->turn_until([&] { return kept.size() == 12; }));
  for (int i = 0; i < 12; ++i)
    EXPECT_TRUE(is_all(kept[static_cast<std::size_t>(i)], static_cast<std::byte>(i)));
}

TEST_F(Shared_payload, Small_ones_are_copied) {
  start();
  EXPECT_TRUE(pair->client.network().take_payload(4096).empty());
}

TEST_F(Shared_payload, What_a_lost_peer_may_look_at_is_never_used_again) {
  start();
  for (int round = 0; round < 6; ++round) {
    auto const first = static_cast<std::byte>(round + 1);
    send(mib, first);
    ASSERT_TRUE(
        pair->turn_until([&] { return kept.size() == static_cast<std::size_t>(round) + 1; }));
    pair->client.network().close(connection);
    connect();
  }
  // All there is has been lent and lost more than once, and yet there is room: a new arena.
  auto mine = send(2 * mib, std::byte{77});
  ASSERT_TRUE(pair->turn_until([&] { return kept.size() == 7; }));
  for (int round = 0; round < 6; ++round)
    EXPECT_TRUE(is_all(kept[static_cast<std::size_t>(round)], static_cast<std::byte>(round + 1)));
  std::fill_n(mine.data(), mine.size(), std::byte{78});
  EXPECT_TRUE(is_all(kept[6], std::byte{78}));
}

TEST_F(Shared_payload, What_was_received_outlives_the_connection_and_its_sender) {
  start();
  send(mib, std::byte{3});
  ASSERT_TRUE(pair->turn_until([&] { return kept.size() == 1; }));
  pair.reset();
  EXPECT_TRUE(is_all(kept[0], std::byte{3}));
}

TEST_F(Shared_payload, Both_sides_may_lend) {
  start();
  std::vector<Slice> answers;
  pair->server_side.react = [this](Connection_id from, Message& message) {
    Message reply;
    reply.header = message.header;
    reply.header.is_reply = true;
    reply.data = pair->server.network().take_payload(message.data.size());
    ASSERT_FALSE(reply.data.empty());
    std::copy(message.data.bytes().begin(), message.data.bytes().end(), reply.data.data());
    pair->server.network().send(from, std::move(reply));
  };
  pair->client_side.react = [&](Connection_id, Message& message) {
    EXPECT_TRUE(message.header.is_reply);
    answers.push_back(std::move(message.data));
  };
  send(mib, std::byte{8});
  ASSERT_TRUE(pair->turn_until([&] { return answers.size() == 1; }));
  EXPECT_TRUE(is_all(answers[0], std::byte{8}));
}

class Malformed_share : public Shared_payload {
 protected:
  void expect_refused(Header const& header) {
    start();
    Message message;
    message.header = header;
    pair->client.network().send(connection, std::move(message));
    ASSERT_TRUE(pair->turn_until([&] { return pair->server_side.disconnected.size() == 1; }));
    EXPECT_NE(pair->server_side.failures[0].text.find("malformed"), std::string::npos);
    EXPECT_TRUE(kept.empty());
  }
};

TEST_F(Malformed_share, Without_its_descriptor) {
  Header header;
  header.operation = Operation::share;
  header.request_id = mib;
  expect_refused(header);
}

TEST_F(Malformed_share, Return_of_what_was_not_lent) {
  Header header;
  header.operation = Operation::give_back;
  header.request_id = 3;
  expect_refused(header);
}

TEST(Shared_view, Is_refused_when_the_memory_could_shrink) {
  File_descriptor fd(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(fd.get(), mib), 0);
  auto const view = Shared_view::open(std::move(fd), mib, nullptr);
  ASSERT_FALSE(view);
  EXPECT_EQ(errc_of(view.error()), Errc::bad_request);
}

TEST(Shared_view, Is_refused_when_the_memory_is_smaller_than_it_says) {
  auto* const arena = Shared_arena::make(mib).value();
  auto const view = Shared_view::open(arena->descriptor().value(), 2 * mib, nullptr);
  EXPECT_FALSE(view);
  arena->abandon();
}

TEST(Shared_view, Knows_its_bounds) {
  auto* const arena = Shared_arena::make(mib).value();
  auto* const view = Shared_view::open(arena->descriptor().value(), mib, nullptr).value();
  EXPECT_TRUE(view->find({.offset = mib - 4096, .size = 4096, .ticket = 0}));
  EXPECT_FALSE(view->find({.offset = mib - 4096, .size = 4097, .ticket = 0}));
  EXPECT_FALSE(view->find({.offset = ~std::uint64_t{0}, .size = 4096, .ticket = 0}));
  EXPECT_FALSE(view->find({.offset = 0, .size = 0, .ticket = 0}));
  view->abandon();
  arena->abandon();
}

}  // namespace
}  // namespace pstorage::test
