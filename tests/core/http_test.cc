// The HTTP server: what it takes for a request, and how it lives with clients that are hostile.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <random>

#include "core/auth/password_check.h"
#include "core/http/server.h"
#include "core/net/socket.h"
#include "tests/core/network_fixture.h"

namespace pstorage::test {
namespace {

using http::Request;
using http::Request_parser;
using State = http::Request_parser::State;

std::string const plain = "GET /metrics?x=1 HTTP/1.1\r\nHost: LocalHost:2512\r\n\r\n";

TEST(Http_parser, A_request_is_the_same_in_pieces_of_any_size) {
  for (std::size_t piece = 1; piece <= plain.size(); ++piece) {
    Request_parser parser;
    Request request;
    State state = State::more;
    for (std::size_t at = 0; at < plain.size(); at += piece) {
      ASSERT_EQ(state, State::more);
      state = parser.feed(std::string_view(plain).substr(at, piece), request);
    }
    ASSERT_EQ(state, State::complete) << piece;
    EXPECT_EQ(request.path, "/metrics");
    EXPECT_EQ(request.host, "localhost");
    EXPECT_TRUE(request.keeps_alive);
  }
}

TEST(Http_parser, What_follows_a_request_is_the_next_one) {
  Request_parser parser;
  Request request;
  EXPECT_EQ(parser.feed(plain + "HEAD / HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n",
                        request),
            State::complete);
  EXPECT_TRUE(parser.has_bytes());
  EXPECT_EQ(parser.feed({}, request), State::complete);
  EXPECT_TRUE(request.is_head);
  EXPECT_FALSE(request.keeps_alive);
  EXPECT_EQ(request.host, "[::1]");
  EXPECT_FALSE(parser.has_bytes());
}

TEST(Http_parser, Anything_else_is_refused_with_its_reason) {
  std::string const host = "Host: localhost\r\n";
  std::pair<std::string, unsigned> const cases[] = {
      {"POST / HTTP/1.1\r\n" + host + "\r\n", 405},
      {"GET / HTTP/2.0\r\n" + host + "\r\n", 505},
      {"GET / FTP\r\n" + host + "\r\n", 400},
      {"GET http://x/ HTTP/1.1\r\n" + host + "\r\n", 400},
      {"GET  HTTP/1.1\r\n" + host + "\r\n", 400},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n" + host + "no colon\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n" + host + " folded: x\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n" + host + "X: a\x01\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhello", 413},
      {"GET / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n", 413},
      {"GET /" + std::string(9000, 'a') + " HTTP/1.1\r\n" + host + "\r\n", 431},
      {std::string("\x16\x03\x01\x02\x00", 5), 400}};
  for (auto const& [text, status] : cases) {
    Request_parser parser;
    Request request;
    EXPECT_EQ(parser.feed(text, request), State::refused) << text.substr(0, 60);
    EXPECT_EQ(parser.status(), status) << text.substr(0, 60);
  }
  std::string many = "GET / HTTP/1.1\r\n" + host;
  for (int i = 0; i < 100; ++i) many += "X: y\r\n";
  Request_parser parser;
  Request request;
  EXPECT_EQ(parser.feed(many + "\r\n", request), State::refused);
  EXPECT_EQ(parser.status(), 431u);
}

TEST(Http_parser, Damaged_requests_neither_crash_it_nor_make_it_keep_more_than_a_head) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 20'000; ++round) {
    auto text = plain;
    for (auto flips = random() % 6; flips > 0; --flips)
      text[random() % text.size()] = static_cast<char>(random());
    Request_parser parser;
    Request request;
    auto state = State::more;
    for (std::size_t at = 0; at < text.size() && state == State::more; at += 7)
      state = parser.feed(std::string_view(text).substr(at, 7), request);
    if (state == State::complete) {
      EXPECT_TRUE(request.path.starts_with('/'));
    }
  }
}

TEST(Http_basic, Only_the_password_of_well_formed_credentials_counts) {
  EXPECT_EQ(basic_password("Basic eDpzZWNyZXQ="), "secret");
  EXPECT_EQ(basic_password("Basic dXNlcjphOmI="), "a:b");
  EXPECT_EQ(basic_password("Basic Og=="), "");
  for (auto const* const bad : {"", "Basic", "Basic ", "Basic !!!!", "Basic eDpz=", "Bearer eDpz",
                                "Basic eHh4", "basic eDpzZWNyZXQ="})
    EXPECT_FALSE(basic_password(bad)) << bad;
}

class Http_server : public testing::Test {
 protected:
  Http_server() : runtime_({.identity = {}, .handle_signals = false}, log_) {}

  void serve(http::Server_limits limits = {}) {
    server_.emplace(
        runtime_,
        [this](Request const& request, http::Respond respond) {
          ++handled_;
          http::Answer answer;
          answer.body = request.path == "/large" ? std::string(4 << 20, 'x') : request.path;
          respond(std::move(answer));
        },
        limits);
    auto const at = server_->listen({.host = "127.0.0.1", .port = 0, .unix_path = {}});
    ASSERT_TRUE(at);
    address_ = at.value();
  }
  File_descriptor connect() {
    auto const endpoint = numeric_endpoint(address_);
    auto fd = begin_connect(endpoint.value());
    EXPECT_TRUE(fd);
    turns(3);
    return std::move(fd).value();
  }
  static void say(File_descriptor const& fd, std::string_view text) {
    static_cast<void>(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
  }
  void turns(int count) {
    for (int i = 0; i < count; ++i) runtime_.run_turn(std::chrono::milliseconds(2));
  }
  /// What arrives until the connection ends or `enough` does.
  std::string hear(File_descriptor const& fd, std::size_t enough, int patience = 500) {
    std::string all;
    char bytes[65536];
    for (int i = 0; i < patience && all.size() < enough; ++i) {
      turns(1);
      auto const got = ::recv(fd.get(), bytes, sizeof bytes, MSG_DONTWAIT);
      if (got == 0) return all;
      if (got > 0) all.append(bytes, static_cast<std::size_t>(got));
    }
    return all;
  }

  Memory_log log_;
  Runtime runtime_;
  std::optional<http::Server> server_;
  Address address_;
  int handled_ = 0;
};

TEST_F(Http_server, Answers_one_request_after_the_other_on_a_connection) {
  serve();
  auto const client = connect();
  say(client, plain + plain + "GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  auto const text = hear(client, 1 << 20, 50);
  EXPECT_EQ(handled_, 3);
  EXPECT_NE(text.find("200 OK"), std::string::npos);
  EXPECT_TRUE(text.ends_with("/last")) << text;
}

TEST_F(Http_server, A_page_of_another_site_learns_nothing_from_a_loopback_address) {
  serve();
  for (std::string const host : {"evil.example", "127.evil.example"}) {
    auto const client = connect();
    say(client, "GET /metrics HTTP/1.1\r\nHost: " + host + "\r\n\r\n");
    EXPECT_TRUE(hear(client, 20).starts_with("HTTP/1.1 421 ")) << host;
  }
  EXPECT_EQ(handled_, 0);
}

TEST_F(Http_server, A_large_answer_arrives_whole_and_who_does_not_take_it_is_hung_up_on) {
  serve({.write_timeout = std::chrono::milliseconds(200)});
  std::string const large = "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n";
  auto const reader = connect();
  say(reader, large);
  EXPECT_GT(hear(reader, 4 << 20, 4000).size(), std::size_t{4} << 20);
  auto const sleeper = connect();
  say(sleeper, large);
  turns(300);
  std::size_t left = 0;
  char bytes[65536];
  for (auto got = ::recv(sleeper.get(), bytes, sizeof bytes, MSG_DONTWAIT); got > 0;
       got = ::recv(sleeper.get(), bytes, sizeof bytes, MSG_DONTWAIT))
    left += static_cast<std::size_t>(got);
  EXPECT_LT(left, std::size_t{4} << 20);
}

TEST_F(Http_server, Slow_idle_and_many_clients_make_room_for_others) {
  serve({.connections_max = 4,
         .head_timeout = std::chrono::milliseconds(100),
         .idle_timeout = std::chrono::milliseconds(100)});
  auto const slow = connect();
  say(slow, "GET / HT");
  EXPECT_EQ(hear(slow, 1, 200), "");  // hung up on, without an answer
  std::vector<File_descriptor> crowd;
  for (int i = 0; i < 50; ++i) crowd.push_back(connect());
  auto const client = connect();
  say(client, plain);
  EXPECT_TRUE(hear(client, 20).starts_with("HTTP/1.1 200 OK"));
}

TEST_F(Http_server, Garbage_is_answered_or_hung_up_on_and_the_next_client_is_served) {
  serve();
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    auto const client = connect();
    std::string noise(1 + random() % 20'000, '\0');
    for (auto& c : noise) c = static_cast<char>(random());
    if (round % 3 == 0) noise.insert(0, plain);
    if (round % 5 == 0) noise.resize(noise.size() / 2);
    say(client, noise);
    turns(2);
  }
  auto const client = connect();
  say(client, plain);
  EXPECT_TRUE(hear(client, 20).starts_with("HTTP/1.1 200 OK"));
}

}  // namespace
}  // namespace pstorage::test
