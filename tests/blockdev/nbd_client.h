// A hand-made NBD client for a session without sockets: sends any bytes, checks what comes back.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "blockdev/nbd_session.h"
#include "tests/blockdev/memory_volume.h"

namespace pstorage::nbd::test {

class Manual_clock final : public Clock {
 public:
  Time_point now() const override { return now_; }
  std::uint64_t wall_ms() const override { return 0; }
  void advance(Duration by) { now_ = now_ + by; }

 private:
  Time_point now_{};
};

class Counting_log final : public Log {
 public:
  void write(Log_level, std::string_view, Fields) override { ++lines; }
  std::size_t lines = 0;
};

/// Big-endian bytes, built field by field.
class Wire {
 public:
  template <typename T>
  Wire& put(T value) {
    std::array<std::byte, sizeof(T)> field;
    store_be(field.data(), static_cast<std::make_unsigned_t<T>>(value));
    bytes_.insert(bytes_.end(), field.begin(), field.end());
    return *this;
  }
  Wire& text(std::string_view text) {
    for (char const c : text) bytes_.push_back(static_cast<std::byte>(c));
    return *this;
  }
  Wire& fill(std::size_t count, int value) {
    bytes_.insert(bytes_.end(), count, static_cast<std::byte>(value));
    return *this;
  }
  std::vector<std::byte> const& bytes() const { return bytes_; }
  std::string str() const { return std::string(as_text(bytes_)); }

 private:
  std::vector<std::byte> bytes_;
};

/// The closures of a loop, run when the test says so.
class Loop {
 public:
  Defer defer() {
    return [this](std::function<void()> work) { queue_.push_back(std::move(work)); };
  }
  bool run_one() {
    if (queue_.empty()) return false;
    auto const work = std::move(queue_.front());
    queue_.pop_front();
    work();
    return true;
  }
  void run() {
    while (run_one()) continue;
  }

 private:
  std::deque<std::function<void()>> queue_;
};

struct Option_reply {
  std::uint32_t option = 0;
  std::uint32_t type = 0;
  std::string data;
};

struct Reply {
  std::uint64_t cookie = 0;
  std::uint32_t error = 0;
  bool is_chunk = false;
  std::uint16_t type = 0;
  std::string data;  // of a chunk, or of a simple read reply
};

/// A session over memory volumes and its client. The volume "disk" of 1 MiB is there.
class Client : public Session_events {
 public:
  explicit Client(Session_limits limits = {}, std::vector<std::string> named = {})
      : provider(loop.defer()),
        disk(provider.add("disk", 1u << 20)),
        exports(provider, clock, log, std::move(named)) {
    connect(limits);
  }
  ~Client() override {
    session->disconnected();
    loop.run();
  }

  void connect(Session_limits limits = {}) {
    session = std::make_unique<Nbd_session>(exports, clock, log, *this, "test", limits);
    received_.clear();
  }
  void on_session_changed() override { ++changes; }

  /// Hands bytes over as the socket would, in pieces of at most `piece`; false: not all were taken.
  bool send(Bytes bytes, std::size_t piece = 1u << 20) {
    while (!bytes.empty() && session->wants_input()) {
      auto const to = session->prepare().parts[0];
      auto const take = std::min({bytes.size(), to.size(), piece});
      std::memcpy(to.data(), bytes.data(), take);
      bytes = bytes.subspan(take);
      session->received(take);
    }
    return bytes.empty();
  }
  bool send(Wire const& wire, std::size_t piece = 1u << 20) { return send(wire.bytes(), piece); }

  /// Everything the session has said and nobody has taken.
  std::string& output() {
    auto& queue = session->output();
    while (!queue.empty()) {
      std::array<iovec, 16> vector;
      auto const count = queue.gather(vector);
      std::size_t bytes = 0;
      for (std::size_t i = 0; i < count; ++i) {
        received_.append(static_cast<char const*>(vector[i].iov_base), vector[i].iov_len);
        bytes += vector[i].iov_len;
      }
      queue.consume(bytes);
      session->sent();
    }
    return received_;
  }
  std::string take(std::size_t bytes) {
    auto& all = output();
    EXPECT_GE(all.size(), bytes);
    auto const part = all.substr(0, bytes);
    all.erase(0, bytes);
    return part;
  }
  template <typename T>
  T take() {
    auto const field = take(sizeof(T));
    return field.size() == sizeof(T) ? load_be<T>(as_bytes(field).data()) : T{};
  }

  void greet(std::uint32_t flags = flag_fixed_newstyle | flag_no_zeroes) {
    EXPECT_EQ(take<std::uint64_t>(), magic_server);
    EXPECT_EQ(take<std::uint64_t>(), magic_option);
    EXPECT_EQ(take<std::uint16_t>(), flag_fixed_newstyle | flag_no_zeroes);
    send(Wire().put(flags));
  }
  static Wire option(Option option, std::string_view data = {}) {
    return Wire()
        .put(magic_option)
        .put(static_cast<std::uint32_t>(option))
        .put(static_cast<std::uint32_t>(data.size()))
        .text(data);
  }
  Option_reply take_option_reply() {
    loop.run();
    EXPECT_EQ(take<std::uint64_t>(), magic_option_reply);
    Option_reply reply;
    reply.option = take<std::uint32_t>();
    reply.type = take<std::uint32_t>();
    reply.data = take(take<std::uint32_t>());
    return reply;
  }
  /// The type of the last reply to `option`; those before it are dropped.
  Option_answer ask(Option number, std::string_view data = {}) {
    send(option(number, data));
    for (;;) {
      auto const type = static_cast<Option_answer>(take_option_reply().type);
      if (type == Option_answer::ack || static_cast<std::uint32_t>(type) >= 0x80000000) return type;
    }
  }
  static std::string info(std::string_view name, std::vector<std::uint16_t> const& infos = {}) {
    Wire wire;
    wire.put(static_cast<std::uint32_t>(name.size())).text(name);
    wire.put(static_cast<std::uint16_t>(infos.size()));
    for (auto const number : infos) wire.put(number);
    return wire.str();
  }
  static std::string meta(std::string_view name, std::vector<std::string> const& queries) {
    Wire wire;
    wire.put(static_cast<std::uint32_t>(name.size())).text(name);
    wire.put(static_cast<std::uint32_t>(queries.size()));
    for (auto const& query : queries)
      wire.put(static_cast<std::uint32_t>(query.size())).text(query);
    return wire.str();
  }
  /// Into transmission with everything negotiated.
  void go(bool structured = true, std::string_view name = "disk") {
    greet();
    if (structured) {
      EXPECT_EQ(ask(Option::structured_reply), Option_answer::ack);
      EXPECT_EQ(ask(Option::set_meta_context, meta(name, {"base:allocation"})), Option_answer::ack);
    }
    EXPECT_EQ(ask(Option::go, info(name)), Option_answer::ack);
  }

  static Wire request(Command command, std::uint64_t cookie, std::uint64_t offset,
                      std::uint32_t length, std::uint16_t flags = 0) {
    return Wire()
        .put(magic_request)
        .put(flags)
        .put(static_cast<std::uint16_t>(command))
        .put(cookie)
        .put(offset)
        .put(length);
  }
  /// One simple reply or chunk. `read_bytes`: what a simple reply to a read carries.
  Reply take_reply(std::size_t read_bytes = 0) {
    loop.run();
    Reply reply;
    auto const magic = take<std::uint32_t>();
    if (magic == magic_simple_reply) {
      reply.error = take<std::uint32_t>();
      reply.cookie = take<std::uint64_t>();
      if (reply.error == 0) reply.data = take(read_bytes);
      return reply;
    }
    EXPECT_EQ(magic, magic_chunk);
    reply.is_chunk = true;
    EXPECT_EQ(take<std::uint16_t>(), chunk_done);
    reply.type = take<std::uint16_t>();
    reply.cookie = take<std::uint64_t>();
    reply.data = take(take<std::uint32_t>());
    if (reply.type == static_cast<std::uint16_t>(Chunk_type::error))
      reply.error = load_be<std::uint32_t>(as_bytes(reply.data).data());
    return reply;
  }
  Error error_for(Wire const& wire) {
    send(wire);
    return static_cast<Error>(take_reply().error);
  }

  Loop loop;
  Manual_clock clock;
  Counting_log log;
  Memory_provider provider;
  Memory_store& disk;
  Exports exports;
  std::unique_ptr<Nbd_session> session;
  std::size_t changes = 0;

 private:
  std::string received_;
};

}  // namespace pstorage::nbd::test
