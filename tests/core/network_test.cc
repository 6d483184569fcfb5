// The real network between two runtimes: everything a role relies on.
#include <gtest/gtest.h>

#include <cstring>
#include <tuple>

#include "tests/core/network_fixture.h"

namespace pstorage::test {
namespace {

Message make_message(std::uint64_t id, std::size_t meta, std::size_t data) {
  Message message;
  message.header.operation = Operation::write;
  message.header.request_id = id;
  message.meta = Slice::allocate(meta);
  message.data = Slice::allocate(data);
  for (std::size_t i = 0; i < meta; ++i) message.meta.data()[i] = static_cast<std::byte>(id + i);
  for (std::size_t i = 0; i < data; ++i)
    message.data.data()[i] = static_cast<std::byte>(id * 3 + i * 7);
  return message;
}

bool same(Message const& a, Message const& b) {
  auto const equal = [](Slice const& x, Slice const& y) {
    return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size()) == 0);
  };
  return a.header.request_id == b.header.request_id && equal(a.meta, b.meta) &&
         equal(a.data, b.data);
}

class Every_kind : public testing::TestWithParam<std::tuple<bool, bool>> {
 protected:
  bool is_unix() const { return std::get<0>(GetParam()); }
  bool encrypted() const { return std::get<1>(GetParam()); }

  Every_kind() {
    auto server = options();
    server.identity.encryption = encrypted();
    pair = std::make_unique<Pair>(server);
    Address at;
    if (is_unix())
      at.unix_path = directory.path("socket");
    else
      at.host = "127.0.0.1";
    auto listened = pair->server.network().listen(at, pair->server_side);
    EXPECT_TRUE(listened) << (listened ? "" : listened.error().text);
    address = listened.value();
  }
  Connection_id connect() {
    auto const id = pair->client.network().connect(address, pair->client_side);
    EXPECT_TRUE(pair->turn_until([&] {
      return pair->client_side.connected.size() == 1 && pair->server_side.connected.size() == 1;
    })) << (pair->client_side.failures.empty() ? "" : pair->client_side.failures[0].text);
    return id;
  }

  Temporary_directory directory;
  std::unique_ptr<Pair> pair;
  Address address;
};

TEST_P(Every_kind, Messages_of_all_sizes_arrive_whole_and_in_order) {
  auto const connection = connect();
  std::vector<std::pair<std::size_t, std::size_t>> const sizes{
      {0, 0},           {4, 4096},   {64, 0},
      {65, 4096},       {0, 65535},  {0, 65536},
      {4096, 1u << 20}, {1, 1},      {1024, data_bytes_max},
      {3, 200000},      {0, 300000}, {9u << 20, 12345},
      {200000, 4096},   {0, 0}};
  std::uint64_t next = 1;
  pair->server_side.react = [&](Connection_id, Message& message) {
    auto const& [meta, data] = sizes[(next - 1) % sizes.size()];
    EXPECT_TRUE(same(message, make_message(next, meta, data))) << "message " << next;
    ++next;
  };
  std::uint64_t sent = 0;
  for (int round = 0; round < 3; ++round)
    for (auto const& [meta, data] : sizes)
      pair->client.network().send(connection, make_message(++sent, meta, data));
  ASSERT_TRUE(pair->turn_until([&] { return next == sent + 1; }));
  EXPECT_EQ(pair->client.network().queued_bytes(connection), 0u);
}

TEST_P(Every_kind, What_is_sent_while_connecting_arrives_first_and_unasked) {
  auto const connection = pair->client.network().connect(address, pair->client_side);
  for (std::uint64_t i = 1; i <= 3; ++i)
    pair->client.network().send(connection, make_message(i, 4, 4096));
  std::uint64_t next = 1;
  pair->server_side.react = [&](Connection_id, Message& message) {
    EXPECT_TRUE(same(message, make_message(next, 4, 4096)));
    ++next;
  };
  EXPECT_TRUE(pair->turn_until([&] { return next == 4; }));
  EXPECT_EQ(pair->client.network().queued_bytes(connection), 0u);
}

TEST_P(Every_kind, Many_small_requests_are_answered_from_inside_the_callback) {
  auto const connection = connect();
  pair->server_side.react = [&](Connection_id from, Message& message) {
    message.header.is_reply = true;
    pair->server.network().send(from, std::move(message));
  };
  std::uint64_t answered = 0;
  constexpr std::uint64_t total = 5000;
  std::uint64_t sent = 0;
  pair->client_side.react = [&](Connection_id, Message& message) {
    EXPECT_EQ(message.header.request_id, ++answered);
    EXPECT_TRUE(message.header.is_reply);
    if (sent < total) pair->client.network().send(connection, make_message(++sent, 4, 4096));
  };
  while (sent < 32) pair->client.network().send(connection, make_message(++sent, 4, 4096));
  ASSERT_TRUE(pair->turn_until([&] { return answered == total; }));
}

TEST_P(Every_kind, Kept_slices_stay_valid_while_more_arrives) {
  auto const connection = connect();
  std::vector<Message> kept;
  pair->server_side.react = [&](Connection_id, Message& message) {
    kept.push_back(std::move(message));
  };
  for (std::uint64_t i = 1; i <= 300; ++i)
    pair->client.network().send(connection, make_message(i, 4, i % 7 * 4096));
  ASSERT_TRUE(pair->turn_until([&] { return kept.size() == 300; }));
  for (std::uint64_t i = 1; i <= 300; ++i)
    EXPECT_TRUE(same(kept[i - 1], make_message(i, 4, i % 7 * 4096)));
}

TEST_P(Every_kind, The_server_may_speak_first) {
  pair->server_side.on_connect = [&](Connection_id connection) {
    for (std::uint64_t i = 1; i <= 100; ++i)
      pair->server.network().send(connection, make_message(i, 16, 4096));
  };
  std::uint64_t next = 1;
  pair->client_side.react = [&](Connection_id, Message& message) {
    EXPECT_TRUE(same(message, make_message(next, 16, 4096)));
    ++next;
  };
  connect();
  EXPECT_TRUE(pair->turn_until([&] { return next == 101; }));
}

TEST_P(Every_kind, A_peer_that_closes_is_reported_once_and_an_own_close_never) {
  auto const connection = connect();
  pair->client.network().close(connection);
  ASSERT_TRUE(pair->turn_until([&] { return pair->server_side.disconnected.size() == 1; }));
  EXPECT_NE(pair->server_side.failures[0].text.find("closed by"), std::string::npos);
  pair->turn(20);
  EXPECT_TRUE(pair->client_side.disconnected.empty());
  EXPECT_EQ(pair->server_side.disconnected.size(), 1u);
  pair->client.network().send(connection, make_message(1, 0, 0));  // swallowed
}

TEST_P(Every_kind, Closing_inside_a_callback_ends_the_batch) {
  auto const connection = connect();
  pair->server_side.react = [&](Connection_id from, Message&) {
    if (pair->server_side.messages == 3) pair->server.network().close(from);
  };
  for (std::uint64_t i = 1; i <= 100; ++i)
    pair->client.network().send(connection, make_message(i, 0, 100));
  ASSERT_TRUE(pair->turn_until([&] { return pair->client_side.disconnected.size() == 1; }));
  EXPECT_EQ(pair->server_side.messages, 3u);
  EXPECT_TRUE(pair->server_side.disconnected.empty());
}

TEST_P(Every_kind, Connecting_and_listening_inside_a_callback_works) {
  Recorder second;
  pair->server_side.on_connect = [&](Connection_id) {
    if (pair->server_side.connected.size() == 1) pair->server.network().connect(address, second);
  };
  pair->client.network().connect(address, pair->client_side);
  EXPECT_TRUE(pair->turn_until(
      [&] { return second.connected.size() == 1 && pair->server_side.connected.size() == 2; }));
}

TEST_P(Every_kind, The_peer_is_described) {
  connect();
  auto const& peer = pair->server_side.peers[0];
  EXPECT_EQ(peer.role, Role::tool);
  EXPECT_TRUE(peer.is_local);
  EXPECT_NE(peer.name.find("core_test["), std::string::npos) << peer.name;
  EXPECT_FALSE(peer.address.empty());
}

INSTANTIATE_TEST_SUITE_P(Network, Every_kind, testing::Combine(testing::Bool(), testing::Bool()),
                         [](auto const& param_info) {
                           return std::string(std::get<0>(param_info.param) ? "unix" : "tcp") +
                                  (std::get<1>(param_info.param) ? "_encrypted" : "_clear");
                         });

}  // namespace
}  // namespace pstorage::test
