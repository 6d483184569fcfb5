// Chunk servers, clients and peers on a fake network: what the tests of the server stand on.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <memory>

#include "cs/chunk_server.h"
#include "tests/cs/fake_network.h"
#include "tests/cs/sim_store.h"

namespace pstorage::cs {

/// One csd.
struct Server_node {
  Server_node(sim::Event_queue& queue, Fake_hub& the_hub, std::uint32_t id,
              std::uint64_t ring_bytes = 4u << 20, sim::Sim_disk_options disk_options = {})
      : hub(the_hub), clock(queue), random(id), disk(queue, random, disk_options) {
    options.identity.cs = {id};
    options.host = {id};
    randomize(options.identity, random);
    EXPECT_TRUE(make_contents(disk, disk, "journal", options.identity, ring_bytes, {}).has_value());
    EXPECT_TRUE(finish_repository(disk, options.identity).has_value());
    options.store.reserve_bytes = 1u << 20;
    options.store.staged_bytes_max = 2u << 20;
    start();
  }
  ~Server_node() {
    if (server) die(false);
  }
  Address address() const { return {"cs" + std::to_string(options.identity.cs.value), 1, {}}; }
  void start() {
    network = std::make_unique<Fake_network>(hub, Role::cs);
    server = std::make_unique<Chunk_server>(clock, *network, disk, disk, random, log, options);
    auto const started = server->start();
    ASSERT_TRUE(started.has_value()) << started.error().text;
    ASSERT_TRUE(network->listen(address(), *server).has_value());
    network->set_turn_hook(server.get());
  }
  void die(bool power_loss) {
    network->die();
    server.reset();
    network.reset();
    if (power_loss) {
      disk.crash();
    } else {
      disk.kill();
    }
  }

  Fake_hub& hub;
  sim::Event_queue& clock;
  Seeded_random random;
  sim::Sim_disk disk;
  Silent_log log;
  Chunk_server_options options;
  std::unique_ptr<Fake_network> network;
  std::unique_ptr<Chunk_server> server;
};

/// A peer that asks and collects answers.
class Asker final : public Connection_handler {
 public:
  Asker(Fake_hub& hub, Role role) : network_(hub, role) {}

  void connect(Address const& to) { connection_ = network_.connect(to, *this); }
  std::uint64_t send(Message message) {
    message.header.request_id = ++request_;
    network_.send(connection_, std::move(message));
    return request_;
  }
  void on_connected(Connection_id, Peer_info const&) override { connected = true; }
  void on_message(Connection_id, Message& message) override {
    answers[message.header.request_id] = std::move(message);
  }
  void on_disconnected(Connection_id, Failure const&) override { connected = false; }

  std::map<std::uint64_t, Message> answers;
  bool connected = false;

 private:
  Fake_network network_;
  Connection_id connection_;
  std::uint64_t request_ = 0;
};

inline constexpr std::uint32_t test_chunk_size = 1u << 20;

/// Servers 1025, 1026, ..., a client on the first one.
class Server_world {
 public:
  explicit Server_world(std::uint32_t servers = 1, std::uint64_t ring_bytes = 4u << 20,
                        sim::Sim_disk_options disk_options = {})
      : hub(queue) {
    for (std::uint32_t i = 0; i < servers; ++i) {
      nodes.push_back(
          std::make_unique<Server_node>(queue, hub, 1025 + i, ring_bytes, disk_options));
      clients.push_back(std::make_unique<Asker>(hub, Role::client));
      peers.push_back(std::make_unique<Asker>(hub, Role::cs));
    }
    reconnect();
  }
  void reconnect() {
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      clients[i]->connect(nodes[i]->address());
      peers[i]->connect(nodes[i]->address());
    }
    run(tick_interval);
  }
  void run(Duration time) {
    for (Time_point const end = queue.now() + time; queue.now() < end;) {
      queue.run_until(queue.now() + tick_interval);
      for (auto& node : nodes) {
        if (node->server) node->server->on_tick();
      }
    }
  }
  Message ask(Asker& asker, Message message, Duration patience = std::chrono::seconds(20)) {
    auto const id = asker.send(std::move(message));
    Time_point const end = queue.now() + patience;
    while (!asker.answers.contains(id) && queue.now() < end) run(tick_interval);
    Message answer;
    answer.header.status = Errc::timed_out;
    if (asker.answers.contains(id)) answer = std::move(asker.answers[id]);
    asker.answers.erase(id);
    return answer;
  }
  proto::Cs_reply control(proto::Cs_request const& request, std::size_t server = 0) {
    Message message;
    message.meta = Slice::allocate(request.ByteSizeLong());
    request.SerializeToArray(message.meta.data(), static_cast<int>(message.meta.size()));
    Message const answer = ask(*clients[server], std::move(message));
    proto::Cs_reply reply;
    EXPECT_TRUE(reply.ParseFromArray(answer.meta.data(), static_cast<int>(answer.meta.size())));
    return reply;
  }
  Errc seal(std::uint32_t epoch, std::size_t server = 0) {
    proto::Cs_request request;
    request.mutable_seal()->set_file(7);
    request.mutable_seal()->set_epoch(epoch);
    return static_cast<Errc>(control(request, server).status());
  }
  proto::Cs_reply::Opened open(std::uint32_t epoch, std::uint32_t version, std::size_t server = 0,
                               std::uint64_t join_stamp = 0, bool create = true) {
    proto::Cs_request request;
    auto& open = *request.mutable_open_chunks();
    open.set_file(7);
    open.set_epoch(epoch);
    auto& one = *open.add_chunks();
    one.set_chunk(chunk.value);
    one.set_version(version);
    one.set_chunk_size(test_chunk_size);
    one.set_create(create);
    one.set_syncing(join_stamp != 0);
    one.set_join_stamp(join_stamp);
    auto const reply = control(request, server);
    if (reply.status() == 0 && reply.chunks_size() == 1) return reply.chunks(0);
    proto::Cs_reply::Opened failed;
    failed.set_status(reply.status());
    return failed;
  }
  Message request(Operation operation, Stamp stamp, std::uint32_t version, std::uint32_t first,
                  std::uint32_t blocks) const {
    Message message;
    message.header.operation = operation;
    message.header.chunk = chunk;
    message.header.stamp = stamp;
    message.header.version = {version};
    message.header.offset = first * block_bytes;
    message.header.length = blocks * block_bytes;
    if (operation == Operation::write) {
      auto made = test_data(stamp.value, first, blocks);
      message.meta = std::move(made.crcs);
      message.data = std::move(made.data);
    }
    return message;
  }
  Errc write(Stamp stamp, std::uint32_t version, std::uint32_t first, std::uint32_t blocks,
             std::size_t server = 0) {
    return ask(*clients[server], request(Operation::write, stamp, version, first, blocks))
        .header.status;
  }
  Errc flush(Epoch epoch, std::size_t server = 0) {
    Message message = request(Operation::flush, Stamp::of(epoch, 0), 0, 0, 0);
    message.header.chunk = {7};
    return ask(*clients[server], std::move(message)).header.status;
  }
  Message read(Epoch epoch, std::uint32_t version, std::uint32_t first, std::uint32_t blocks,
               std::size_t server = 0) {
    return ask(*clients[server],
               request(Operation::read, Stamp::of(epoch, 0), version, first, blocks));
  }
  bool holds(Epoch epoch, std::uint32_t version, std::uint32_t block, Stamp stamp,
             std::size_t server = 0) {
    Message const answer = read(epoch, version, block, 1, server);
    Slice const expected = test_block(stamp.value, block);
    return answer.header.status == Errc::ok && answer.data.size() == block_bytes &&
           std::memcmp(answer.data.data(), expected.data(), block_bytes) == 0 &&
           load_le<std::uint32_t>(answer.meta.data()) == crc32c(expected.bytes());
  }

  static constexpr Chunk_id chunk{0x1122};
  sim::Event_queue queue;
  Fake_hub hub;
  std::vector<std::unique_ptr<Server_node>> nodes;
  std::vector<std::unique_ptr<Asker>> clients;
  std::vector<std::unique_ptr<Asker>> peers;
};

}  // namespace pstorage::cs
