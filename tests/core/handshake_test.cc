// Who may talk to whom, and what strangers, port scans and garbage get.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <random>

#include "core/auth/salt.h"
#include "core/net/socket.h"
#include "core/runtime/implementation.h"
#include "tests/core/network_fixture.h"

namespace pstorage::test {
namespace {

/// A server on loopback and whatever connects to it.
class Handshake : public testing::Test {
 protected:
  void serve(Runtime_options server, Runtime_options client) {
    pair = std::make_unique<Pair>(std::move(server), std::move(client));
    Address any;
    any.host = "127.0.0.1";
    address = pair->server.network().listen(any, pair->server_side).value();
  }
  /// Connects and answers why it failed; empty when it did not.
  std::string connect() {
    pair->client.network().connect(address, pair->client_side);
    auto& side = pair->client_side;
    EXPECT_TRUE(
        pair->turn_until([&] { return !side.connected.empty() || !side.failures.empty(); }));
    pair->turn(5);
    if (side.failures.empty()) return {};
    code = errc_of(side.failures[0].code);
    return side.failures[0].text;
  }
  bool server_knows_nothing() const {
    return pair->server_side.connected.empty() && pair->server_side.disconnected.empty();
  }

  /// A raw socket to the server.
  File_descriptor raw() {
    auto fd = begin_connect(numeric_endpoint(address).value()).value();
    pollfd entry{fd.get(), POLLOUT, 0};
    ::poll(&entry, 1, 1000);
    return fd;
  }
  static void put(File_descriptor const& fd, std::string_view bytes) {
    EXPECT_EQ(::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  /// Turns the loops until the server has hung up on `fd`; what it said before.
  std::string read_to_end(File_descriptor const& fd) {
    std::string said;
    bool ended = false;
    EXPECT_TRUE(pair->turn_until([&] {
      char buffer[4096];
      auto const got = ::recv(fd.get(), buffer, sizeof buffer, MSG_DONTWAIT);
      if (got > 0) said.append(buffer, static_cast<std::size_t>(got));
      ended = got == 0 || (got < 0 && errno != EAGAIN);
      return ended;
    }));
    return said;
  }

  std::unique_ptr<Pair> pair;
  Address address;
  Errc code = Errc::ok;
};

TEST_F(Handshake, A_wrong_password_and_a_wrong_cluster_name_look_the_same) {
  serve(options(), options("test", 'x'));
  auto const wrong_key = connect();
  EXPECT_EQ(code, Errc::wrong_key);
  EXPECT_TRUE(server_knows_nothing());
  EXPECT_EQ(pair->server_log.count("authentication failed"), 1u);
  auto const expected =
      "authentication failed at " + address.text() + ": the password or the cluster name is wrong";
  EXPECT_EQ(wrong_key, expected);

  serve(options(), options("other"));
  auto const wrong_name = connect();
  EXPECT_EQ(code, Errc::wrong_key);
  EXPECT_EQ(wrong_name, "authentication failed at " + address.text() +
                            ": the password or the cluster name is wrong");
  EXPECT_EQ(pair->server_log.count("authentication failed"), 1u);
}

TEST_F(Handshake, Another_cluster_of_the_same_name_and_password_is_refused) {
  auto server = options(), client = options();
  server.identity.cluster_uuid = "11111111";
  client.identity.cluster_uuid = "22222222";
  serve(server, client);
  EXPECT_NE(connect().find("another cluster of the name 'test'"), std::string::npos);
  EXPECT_EQ(code, Errc::wrong_cluster);
  EXPECT_EQ(pair->server_log.count("another cluster"), 1u);
}

TEST_F(Handshake, Who_does_not_know_the_uuid_yet_is_let_in) {
  auto server = options();
  server.identity.cluster_uuid = "11111111";
  serve(server, options());
  EXPECT_EQ(connect(), "");
  EXPECT_EQ(pair->client_side.peers[0].cluster_uuid, "11111111");
}

TEST_F(Handshake, Another_protocol_version_is_refused_in_words_on_both_sides) {
  serve(options(), options());
  Network_options old;
  old.identity = options().identity;
  old.identity.name = "old";
  old.protocol = protocol_version + 1;
  auto& implementation = pair->client.implementation();
  Socket_network network(implementation.loop(), old, pair->client.clock(), pair->client_log);
  implementation.add_flusher(network);
  network.connect(address, pair->client_side);
  EXPECT_TRUE(pair->turn_until([&] { return !pair->client_side.failures.empty(); }));
  EXPECT_EQ(errc_of(pair->client_side.failures[0].code), Errc::wrong_version);
  EXPECT_NE(pair->client_side.failures[0].text.find("protocol version"), std::string::npos);
  pair->turn(10);
  EXPECT_EQ(pair->server_log.count("protocol version"), 1u);
  implementation.remove_flusher(network);
}

TEST_F(Handshake, Nothing_listens_is_said_so) {
  serve(options(), options());
  Address dead = address;
  {
    Address real;
    auto const once = listen_at(Address{.host = "127.0.0.1", .port = 0, .unix_path = {}}, real);
    dead = real;
  }
  address = dead;
  EXPECT_EQ(connect(), "connection refused by " + dead.text() + ": is the server running?");
  EXPECT_EQ(pair->client_side.disconnected.size(), 1u);

  Address missing;
  missing.unix_path = "/nonexistent/socket";
  address = missing;
  pair->client_side.failures.clear();
  EXPECT_NE(connect().find("there is no socket"), std::string::npos);
}

TEST_F(Handshake, Names_are_looked_up) {
  serve(options(), options());
  address.host = "localhost";
  EXPECT_EQ(connect(), "");
}

TEST_F(Handshake, An_unknown_name_is_said_so) {
  serve(options(), options());
  address.host = "no-such-host.invalid";
  EXPECT_NE(connect().find("no-such-host.invalid"), std::string::npos);
}

TEST_F(Handshake, A_closed_connection_attempt_calls_nobody) {
  serve(options(), options());
  auto const id = pair->client.network().connect(address, pair->client_side);
  pair->client.network().close(id);
  pair->turn(30);
  EXPECT_TRUE(pair->client_side.connected.empty());
  EXPECT_TRUE(pair->client_side.disconnected.empty());
}

TEST_F(Handshake, A_server_that_says_nothing_is_given_up) {
  auto client = options();
  client.handshake_timeout = std::chrono::milliseconds(200);
  serve(options(), client);
  Address real;
  auto const silent = listen_at(Address{.host = "127.0.0.1", .port = 0, .unix_path = {}}, real);
  ASSERT_TRUE(silent);
  address = real;
  EXPECT_NE(connect().find("no handshake"), std::string::npos);
  EXPECT_EQ(code, Errc::timed_out);
}

TEST_F(Handshake, A_client_that_says_nothing_is_given_up) {
  auto server = options();
  server.handshake_timeout = std::chrono::milliseconds(200);
  serve(server, options());
  auto const silent = raw();
  EXPECT_EQ(read_to_end(silent), "");
  EXPECT_EQ(pair->server_log.count("no handshake"), 1u);
  EXPECT_TRUE(server_knows_nothing());
}

TEST_F(Handshake, Garbage_is_refused_and_the_next_one_is_served) {
  serve(options(), options());
  std::mt19937_64 random(1);
  for (int i = 0; i < 50; ++i) {
    auto const fd = raw();
    std::string bytes(1 + random() % 5000, '\0');
    for (auto& c : bytes) c = static_cast<char>(random());
    if (i % 2 == 0) {  // like a TLS record, so that the library sees the rest
      bytes.resize(std::max<std::size_t>(bytes.size(), 64));
      bytes[0] = 22, bytes[1] = 3, bytes[2] = 1, bytes[3] = 0, bytes[4] = 50;
    }
    put(fd, bytes);
    read_to_end(fd);
  }
  EXPECT_TRUE(server_knows_nothing());
  EXPECT_LE(pair->server_log.lines.size(), 60u);
  EXPECT_EQ(connect(), "");
}

TEST_F(Handshake, A_flood_of_refusals_does_not_flood_the_log) {
  serve(options(), options());
  for (int i = 0; i < 200; ++i) {
    auto const fd = raw();
    put(fd, "GET / HTTP/1.0\r\n\r\n");
    read_to_end(fd);
  }
  EXPECT_LE(pair->server_log.lines.size(), 40u);
}

TEST_F(Handshake, A_port_scan_does_not_lock_others_out) {
  auto server = options();
  server.unauthenticated_max = 8;
  serve(server, options());
  std::vector<File_descriptor> scan;
  for (int i = 0; i < 40; ++i) {
    scan.push_back(raw());
    pair->turn(1);
  }
  EXPECT_EQ(connect(), "");
}

TEST_F(Handshake, Above_the_limit_connections_are_refused) {
  auto server = options();
  server.connections_max = 3;
  serve(server, options());
  for (int i = 0; i < 3; ++i) pair->client.network().connect(address, pair->client_side);
  EXPECT_TRUE(pair->turn_until([&] { return pair->client_side.connected.size() == 3; }));
  auto const fourth = pair->client.network().connect(address, pair->client_side);
  EXPECT_TRUE(pair->turn_until([&] { return pair->client_side.disconnected.size() == 1; }));
  EXPECT_EQ(pair->client_side.disconnected[0], fourth);
  EXPECT_EQ(pair->server_log.count("more than 3 connections"), 1u);
  pair->client.network().close(pair->client_side.connected[0]);
  pair->turn(10);
  pair->client.network().connect(address, pair->client_side);
  EXPECT_TRUE(pair->turn_until([&] { return pair->client_side.connected.size() == 4; }));
}

TEST_F(Handshake, Running_out_of_descriptors_is_survived) {
  serve(options(), options());
  std::vector<File_descriptor> waiting;
  for (int i = 0; i < 5; ++i) waiting.push_back(raw());
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(waiting.back().get()) + 1;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  pair->turn(20);
  EXPECT_GE(pair->server_log.count("accept failed"), 1u);
  EXPECT_LE(pair->server_log.count("accept failed"), 10u) << "it spins";
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(connect(), "");
}

TEST_F(Handshake, A_peer_that_takes_nothing_is_cut_off) {
  serve(options(), options());
  EXPECT_EQ(connect(), "");
  auto const to = pair->client_side.connected[0];
  Message big;
  big.data = Slice::allocate(data_bytes_max);
  // Only the client's loop turns: the server does not read.
  for (int i = 0; i < 40 && pair->client_side.failures.empty(); ++i) {
    pair->client.network().send(to, big);
    pair->client.run_turn(std::chrono::milliseconds(1));
  }
  ASSERT_EQ(pair->client_side.failures.size(), 1u);
  EXPECT_NE(pair->client_side.failures[0].text.find("takes no messages"), std::string::npos);
}

TEST_F(Handshake, A_malformed_message_ends_the_connection) {
  serve(options(), options());
  // A peer that has the key and then breaks the format: plain bytes through its own TLS.
  auto const fd = raw();
  Tls_context context("test", options().identity.key);
  Tls_channel tls(context, false);
  bool greeted = false;
  std::string raw_bytes;
  EXPECT_EQ(tls.handshake(), Tls_channel::Status::want_input);
  EXPECT_TRUE(pair->turn_until([&] {
    auto const out = tls.output();
    if (!out.empty()) {
      put(fd, as_text(out));
      tls.consume_output(out.size());
    }
    char buffer[4096];
    auto const got = ::recv(fd.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (got <= 0) return got == 0;
    tls.feed(Bytes(reinterpret_cast<std::byte const*>(buffer), static_cast<std::size_t>(got)));
    if (greeted || tls.handshake() != Tls_channel::Status::progress) return false;
    auto const hello =
        make_hello(pair->client_side.peers.empty() ? options().identity : options().identity,
                   protocol_version);
    greeted = tls.write(as_bytes(frame_control(hello, false))) == Tls_channel::Status::progress;
    put(fd, as_text(tls.output()));
    tls.consume_output(tls.output().size());
    return pair->turn_until([&] { return !pair->server_side.connected.empty(); });
  }));
  put(fd, std::string(64, 'x'));
  EXPECT_TRUE(pair->turn_until([&] { return !pair->server_side.failures.empty(); }));
  EXPECT_NE(pair->server_side.failures[0].text.find("malformed message"), std::string::npos);
}

TEST_F(Handshake, The_salt_is_told_before_authentication) {
  serve(options(), options());
  auto const fd = raw();
  put(fd, "PSTS");
  pair->turn(3);
  put(fd, "ALT1");
  auto const said = read_to_end(fd);
  auto const answer = decode_salt_answer(as_bytes(said));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer.value().cluster, "test");
  EXPECT_EQ(answer.value().salt, options().identity.key.salt);
}

TEST_F(Handshake, Only_the_salt_request_itself_is_answered) {
  serve(options(), options());
  auto const fd = raw();
  put(fd, "PSTSALT2");
  EXPECT_EQ(read_to_end(fd), "");
}

TEST(Salt, Malformed_answers_are_refused) {
  auto const valid = encode_salt_answer({}, "stor1");
  EXPECT_TRUE(decode_salt_answer(valid));
  for (std::size_t cut = 0; cut < valid.size(); ++cut)
    EXPECT_FALSE(decode_salt_answer(Bytes(valid).first(cut)));
  auto longer = valid;
  longer.push_back(std::byte{'x'});
  EXPECT_FALSE(decode_salt_answer(longer));
  EXPECT_FALSE(decode_salt_answer(encode_salt_answer({}, "")));
}

TEST(Salt, A_server_that_does_not_answer_is_reported) {
  Address real;
  auto const silent = listen_at(Address{.host = "127.0.0.1", .port = 0, .unix_path = {}}, real);
  ASSERT_TRUE(silent);
  auto const answer = fetch_salt(real, std::chrono::milliseconds(100));
  ASSERT_FALSE(answer);
  EXPECT_NE(answer.error().text.find("does not tell"), std::string::npos);
}

TEST(Tls_record, Bytes_that_are_no_record_are_refused_from_the_first_one) {
  auto const size = [](std::vector<unsigned char> const& bytes) {
    return tls_record_bytes({reinterpret_cast<std::byte const*>(bytes.data()), bytes.size()});
  };
  EXPECT_FALSE(size({'G'}));
  EXPECT_FALSE(size({22, 4}));
  EXPECT_FALSE(size({22, 3, 1, 0xff, 0xff}));
  EXPECT_FALSE(size({22, 3, 1, 0, 0}));
  EXPECT_EQ(size({22, 3, 1}).value(), 0u);
  EXPECT_EQ(size({22, 3, 1, 1, 2}).value(), 5u + 258u);
}

}  // namespace
}  // namespace pstorage::test
