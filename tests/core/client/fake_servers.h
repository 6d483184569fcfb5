// Servers without storage or rules of their own, for tests of the client library: a metadata server
// that leases one file of at most two chunks, chunk servers that do what the test says, and a
// client of theirs that has opened the file.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/client/cluster.h"
#include "core/crc32c.h"
#include "core/net/message.h"
#include "tests/sim/sim_world.h"

namespace pstorage::client {

inline constexpr std::uint64_t fake_file = 7, fake_chunk = 9;
inline constexpr std::uint32_t fake_chunk_bytes = 64 << 10;

inline std::string fake_cs_name(std::uint32_t cs) { return "cs" + std::to_string(cs); }

/// Sends what its heirs answer.
class Fake_server : public Connection_handler {
 public:
  Fake_server(sim::Sim_node& node, Address const& at) : node_(node) {
    static_cast<void>(node_.listen(at, *this));
    node_.start({});
  }
  void on_connected(Connection_id connection, Peer_info const&) override { client_ = connection; }
  void on_disconnected(Connection_id, Failure const&) override {}

 protected:
  void reply(Header const& asked, Slice meta, Slice data = {}) {
    Message message;
    message.header = asked;
    message.header.is_reply = true;
    message.header.incarnation = {1};
    message.meta = std::move(meta);
    message.data = std::move(data);
    node_.send(client_, std::move(message));
  }
  template <typename Body>
  static Slice bytes_of(Body const& body) {
    Slice slice = Slice::allocate(body.ByteSizeLong());
    body.SerializeToArray(slice.data(), static_cast<int>(slice.size()));
    return slice;
  }
  template <typename Body>
  static Body parsed(Message const& message) {
    Body body;
    EXPECT_TRUE(body.ParseFromArray(message.meta.data(), static_cast<int>(message.meta.size())));
    return body;
  }
  sim::Sim_node& node_;
  Connection_id client_;  // there is one
};

/// Leases its file to anybody.
class Fake_mds : public Fake_server {
 public:
  using Members = std::vector<std::pair<std::uint32_t, proto::Replica_state>>;

  /// `members`: of the chunk, at version 2; none: the file has no chunk.
  Fake_mds(sim::Sim_node& node, std::uint32_t replicas_min, Members members)
      : Fake_server(node, address()), replicas_min_(replicas_min), members_(std::move(members)) {}
  static Address address() { return {"mds", 2511, {}}; }
  /// Before the file is opened: it has two chunks, this one first or last.
  void add_chunk(Members members, bool is_first) {
    other_ = std::move(members);
    other_is_first_ = is_first;
  }

  void on_message(Connection_id, Message& message) override {
    auto const request = parsed<proto::Mds_request>(message);
    if (is_silent) return;
    proto::Mds_reply answer;
    if (request.has_open_session()) answer.mutable_session()->set_timeout_ms(10000);
    if (request.has_open_file()) *answer.mutable_lease() = lease();
    if (request.has_close_file() && request.close_file().file() != fake_file)
      answer.set_status(static_cast<std::uint32_t>(Errc::stale_epoch));
    if (request.has_finish_seal()) answer.set_status(static_cast<std::uint32_t>(seal_status));
    if (request.has_report_failed()) *answer.mutable_map() = map();
    if (request.has_get_map()) *answer.mutable_map() = map(request.get_map());
    for (auto const& chunk : request.report_failed().chunks())
      reported.assign(chunk.failed().begin(), chunk.failed().end());
    on_request(request);
    reply(message.header, bytes_of(answer));
  }
  /// The chunk has a new set, under a new version, and the client hears of it.
  void change_set(Members members) {
    members_ = std::move(members);
    ++version_;
    proto::Mds_push news;
    *news.mutable_map_changed() = map();
    push(news);
  }
  void push(proto::Mds_push const& news) {
    Message message;
    message.header.operation = Operation::control;
    message.meta = bytes_of(news);
    node_.run([&] { node_.send(client_, std::move(message)); });
  }
  bool is_silent = false;
  bool leases_sealed = true;            // nothing is to be fenced
  Errc seal_status = Errc::ok;          // what it answers a client that has fenced the former ones
  std::string on_full;                  // the volume's option
  std::vector<std::uint32_t> reported;  // by the client's last report: the servers that failed

 protected:
  virtual void on_request(proto::Mds_request const&) {}

 private:
  proto::Lease lease() const {
    proto::Lease lease;
    lease.set_epoch(1);
    lease.set_sealed(leases_sealed);
    lease.set_clean(true);
    lease.mutable_file()->set_id(fake_file);
    lease.mutable_file()->set_size(fake_chunk_bytes * (other_.empty() ? 1 : 2));
    lease.mutable_file()->mutable_attributes()->set_chunk_size(fake_chunk_bytes);
    lease.mutable_file()->mutable_attributes()->set_replicas_min(replicas_min_);
    lease.mutable_file()->mutable_attributes()->set_on_full(on_full);
    *lease.mutable_map() = map();
    return lease;
  }
  proto::File_map map() const {
    proto::File_map map;
    map.set_file(fake_file);
    bool const has_two = !other_.empty();
    if (!members_.empty()) add_chunk(map, has_two && other_is_first_ ? 1 : 0, fake_chunk, members_);
    if (has_two) add_chunk(map, other_is_first_ ? 0 : 1, fake_chunk + 1, other_);
    return map;
  }
  proto::File_map map(proto::Get_map const& asked) const {
    proto::File_map found = map();
    for (int i = found.chunks_size(); i-- > 0;)
      if (std::ranges::count(asked.indexes(), found.chunks(i).index()) == 0)
        found.mutable_chunks()->DeleteSubrange(i, 1);
    return found;
  }
  void add_chunk(proto::File_map& map, std::uint32_t index, std::uint64_t id,
                 Members const& members) const {
    auto& chunk = *map.add_chunks();
    chunk.set_index(index);
    chunk.set_chunk(id);
    chunk.set_version(version_);
    for (auto const& [cs, state] : members) {
      auto& replica = *chunk.add_replicas();
      replica.set_cs(cs);
      replica.set_state(state);
      auto& server = *map.add_servers();
      server.set_cs(cs);
      server.set_alive(true);
      server.add_addresses(fake_cs_name(cs) + ":1");
    }
  }
  std::uint32_t const replicas_min_;
  Members members_, other_;
  bool other_is_first_ = false;
  std::uint32_t version_ = 2;
};

/// Holds one chunk in memory: zeros at first.
class Fake_cs final : public Fake_server {
 public:
  Fake_cs(sim::Sim_node& node, std::uint32_t cs)
      : Fake_server(node, {fake_cs_name(cs), 1, {}}), content_(fake_chunk_bytes) {}

  void on_message(Connection_id, Message& message) override {
    Operation const operation = message.header.operation;
    if ((operation == Operation::read && holds_reads) ||
        (operation == Operation::write && holds_writes))
      held_.push_back(std::move(message));
    else
      handle(message);
  }
  /// Does now what it held: a read finds what is there by now.
  void release() {
    holds_reads = holds_writes = false;
    node_.run([this] {
      for (Message const& message : std::exchange(held_, {})) handle(message);
    });
  }
  std::size_t held() const { return held_.size(); }
  /// The first byte of a block.
  std::byte content(std::size_t block) const { return content_[block * block_bytes]; }
  /// As a power failure does to what was not flushed. What it held is never answered.
  void forget() {
    content_.assign(content_.size(), std::byte{0});
    held_.clear();
    last_stamp = 0;
  }

  bool is_sealed = false;  // by a newer writer
  bool holds_reads = false, holds_writes = false;
  std::optional<std::size_t> no_room_for;  // refuses writes of this block
  std::uint64_t last_stamp = 0;            // says so when the chunk is opened
  bool has_joined = false;                 // it was opened as a newcomer
  /// What it says of its blocks, whatever it holds: holes at first.
  std::vector<Block_record> table{fake_chunk_bytes / block_bytes,
                                  {0, crc32c_of_zero_block, block_hole}};

 private:
  void handle(Message const& message) {
    Header const& header = message.header;
    switch (header.operation) {
      case Operation::read:
        return deliver(header);
      case Operation::write:
        return write(message);
      case Operation::table:
        return reply(header, records(header));
      default:
        return control(header, parsed<proto::Cs_request>(message));
    }
  }
  Slice records(Header const& header) const {
    return Slice::copy_of(std::as_bytes(
        std::span(table).subspan(header.offset / block_bytes, header.length / block_bytes)));
  }
  void write(Message const& message) {
    Header header = message.header;
    if (no_room_for == header.offset / block_bytes) {
      header.status = Errc::no_space;
      return reply(header, {});
    }
    if (header.stamp.value <= last_stamp) return reply(header, {});  // it has that already
    std::memcpy(content_.data() + header.offset, message.data.data(), message.data.size());
    last_stamp = header.stamp.value;
    reply(header, {});
  }
  void deliver(Header const& header) {
    std::size_t const blocks = header.length / block_bytes;
    Slice crcs = Slice::allocate(blocks * sizeof(std::uint32_t));
    Slice data = Slice::copy_of({content_.data() + header.offset, header.length});
    for (std::size_t i = 0; i < blocks; ++i)
      store_le(crcs.data() + i * sizeof(std::uint32_t),
               crc32c({data.data() + i * block_bytes, block_bytes}));
    reply(header, std::move(crcs), std::move(data));
  }
  void control(Header const& header, proto::Cs_request const& request) {
    proto::Cs_reply answer;
    answer.set_incarnation(1);
    for (auto const& one : request.open_chunks().chunks()) {
      auto& opened = *answer.add_chunks();
      opened.set_chunk(one.chunk());
      opened.set_version(one.version());
      opened.set_last_stamp(last_stamp);
      has_joined = has_joined || one.syncing();
    }
    if (request.seal().only_ask() && is_sealed) {
      answer.set_status(static_cast<std::uint32_t>(Errc::stale_epoch));
      answer.set_epoch(2);
    }
    reply(header, bytes_of(answer));
  }
  std::vector<std::byte> content_;
  std::vector<Message> held_;
};

/// A client in a world to which the heir adds the servers.
class Fake_cluster : public testing::Test {
 protected:
  Fake_cluster()
      : world_(1, {}),
        node_(world_.add_node("client", Role::client, {9})),
        cluster_(node_, node_, world_.random(), world_, node_, options()) {}
  void TearDown() override {
    volume_.reset();
    node_.stop(true);
  }
  /// Opens the file: once the servers are there.
  void open() {
    node_.start({&cluster_});
    node_.run([this] {
      cluster_.open("/volumes/v", {}, [this](Outcome<std::unique_ptr<Volume>> opened) {
        ASSERT_TRUE(opened.has_value());
        volume_ = std::move(opened).value();
      });
    });
    run(std::chrono::seconds(1));
    ASSERT_NE(volume_, nullptr);
  }
  void run(Duration time) { world_.queue().run_until(world_.now() + time); }

  /// What a request was answered; timed_out: not yet. Of a read: its first byte.
  struct Answer {
    Errc status = Errc::timed_out;
    std::byte first{};
  };
  using Answered = std::shared_ptr<Answer>;
  /// Asks for a block.
  Answered start_read(std::size_t number = 0) {
    auto const answer = std::make_shared<Answer>();
    node_.run([&] {
      volume_->read(number * block_bytes, block_bytes,
                    [answer](Result<std::vector<Slice>> const& found) {
                      answer->status = found.has_value() ? Errc::ok : errc_of(found.error());
                      if (found.has_value()) answer->first = *found.value().front().data();
                    });
    });
    return answer;
  }
  /// Fills blocks.
  Answered start_write(std::byte with, std::size_t number = 0, std::size_t count = 1) {
    auto const answer = std::make_shared<Answer>();
    Slice block = Slice::allocate(count * block_bytes);
    std::memset(block.data(), std::to_integer<int>(with), block.size());
    node_.run([&] {
      volume_->write(number * block_bytes, {block}, false, [answer](Result<void> const& done) {
        answer->status = done.has_value() ? Errc::ok : errc_of(done.error());
      });
    });
    return answer;
  }

  sim::Sim_world world_;
  sim::Sim_node& node_;
  Cluster cluster_;
  std::unique_ptr<Volume> volume_;

 private:
  static Cluster_options options() {
    Cluster_options options;
    options.session.servers = {Fake_mds::address()};
    options.session.name = "client";
    return options;
  }
};

}  // namespace pstorage::client
