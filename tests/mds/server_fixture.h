// A metadata server on a simulated disk and clock, with hand-made peers.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>

#include "mds/raft/raft_node.h"
#include "mds/server/metadata_server.h"
#include "tests/mds/fakes.h"
#include "tests/sim/sim_disk.h"

namespace pstorage::mds {

/// Remembers what the server sends to whom.
class Fake_network final : public Network {
 public:
  Connection_id connect(Address const&, Connection_handler&) override { return {}; }
  Outcome<Address> listen(Address const& at, Connection_handler&) override { return at; }
  void send(Connection_id connection, Message message) override {
    sent[connection].push_back(std::move(message));
  }
  void close(Connection_id connection) override { closed.push_back(connection); }
  std::size_t queued_bytes(Connection_id) const override { return 0; }
  void set_turn_hook(Turn_hook*) override {}

  std::map<Connection_id, std::deque<Message>> sent;
  std::vector<Connection_id> closed;
};

class Server_fixture : public ::testing::Test {
 protected:
  void TearDown() override {
    server_.reset();
    entries_.reset();
  }

  void start() {
    make("uuid-1");
    auto const started = server_->start();
    ASSERT_TRUE(started.has_value()) << started.error().text;
    run(std::chrono::milliseconds(50));
  }
  void make(std::string const& cluster_uuid) {
    Metadata_server_options options;
    options.cluster = "stor1";
    options.cluster_uuid = cluster_uuid;
    options.address = "127.0.0.1:2510";
    options.space_reserve_bytes = reserve_;
    options.apply_rows_max = apply_rows_max_;
    options.next_turn = [this](std::function<void()> work) { turns_.push_back(std::move(work)); };
    options.on_fatal = [this](Failure const& why) { fatal_ = why.text; };
    raft::Raft_node_options log;
    log.cluster_uuid = options.cluster_uuid;
    log.log.segment_bytes = 64u << 10;
    log.log.reserve_bytes = 16u << 10;
    log.log.member = {7};
    log.log.first.add({{7}, raft::Member_kind::voter, options.address});
    entries_ = std::make_unique<raft::Raft_node>(queue_, network_, disk_, random_, log_, log,
                                                 nullptr, nullptr);
    server_ = std::make_unique<Metadata_server>(queue_, network_, disk_, random_, log_, *entries_,
                                                options);
  }
  /// kill -9: what was not sent is lost, the disk keeps everything.
  void kill() {
    server_.reset();
    entries_.reset();
    turns_.clear();
    disk_.kill();
    network_.sent.clear();
  }
  /// Lets time pass in ticks.
  void run(Duration duration) {
    auto const end = queue_.now() + duration;
    while (queue_.now() < end) {
      queue_.run_until(queue_.now() + tick_interval);
      if (!server_) continue;
      if (has_turns_) {
        for (auto& work : std::exchange(turns_, {})) work();
      }
      entries_->on_tick();
      server_->on_tick();
    }
  }

  Connection_id connect(Role role, std::string const& name = "peer") {
    Connection_id const connection{++connections_};
    Peer_info peer;
    peer.role = role;
    peer.name = name;
    server_->on_connected(connection, peer);
    return connection;
  }
  void disconnect(Connection_id connection) {
    server_->on_disconnected(connection, failure(Errc::closed, "closed"));
  }
  /// Delivers the request; the answer comes later.
  std::uint64_t post(Connection_id connection, proto::Mds_request const& request) {
    Message message;
    message.header.request_id = ++requests_;
    message.meta = Slice::copy_of(as_bytes(request.SerializeAsString()));
    server_->on_message(connection, message);
    server_->on_turn_end();
    return requests_;
  }
  proto::Mds_reply ask(Connection_id connection, proto::Mds_request const& request) {
    auto const id = post(connection, request);
    run(std::chrono::milliseconds(20));
    return answer(connection, id);
  }
  /// The answer to request `id`; pushes are moved to pushes_ on the way.
  proto::Mds_reply answer(Connection_id connection, std::uint64_t id) {
    proto::Mds_reply reply;
    bool found = false;
    auto& sent = network_.sent[connection];
    for (auto& message : sent) {
      auto const text = std::string(as_text(message.meta.bytes()));
      if (message.header.request_id == 0) {
        proto::Mds_push push;
        EXPECT_TRUE(push.ParseFromString(text));
        pushes_[connection].push_back(std::move(push));
      } else if (message.header.request_id == id) {
        EXPECT_TRUE(reply.ParseFromString(text));
        found = true;
      }
    }
    sent.clear();
    EXPECT_TRUE(found) << "no answer to request " << id;
    return reply;
  }
  std::vector<proto::Mds_push> take_pushes(Connection_id connection) {
    for (auto& message : network_.sent[connection]) {
      proto::Mds_push push;
      if (message.header.request_id == 0 &&
          push.ParseFromString(std::string(as_text(message.meta.bytes())))) {
        pushes_[connection].push_back(std::move(push));
      }
    }
    network_.sent[connection].clear();
    return std::exchange(pushes_[connection], {});
  }
  proto::Mds_reply command(Connection_id connection, std::uint64_t session,
                           proto::Mds_request request) {
    request.set_session(session);
    request.set_sequence(++sequences_[session]);
    return ask(connection, request);
  }
  void open_session(Connection_id connection, std::uint64_t session,
                    std::string const& name = "nbd[1]@host1") {
    proto::Mds_request request;
    request.set_session(session);
    request.set_sequence(++sequences_[session]);
    request.mutable_open_session()->set_name(name);
    auto const reply = ask(connection, request);
    EXPECT_EQ(reply.status(), 0u) << reply.text();
    EXPECT_EQ(reply.session().mds(), 1u);
  }
  proto::Mds_reply heartbeat(Connection_id connection, std::uint64_t session,
                             std::vector<std::uint64_t> const& files = {}) {
    proto::Mds_request request;
    request.set_session(session);
    request.mutable_heartbeat();
    for (auto const file : files) request.mutable_heartbeat()->add_files(file);
    return ask(connection, request);
  }
  proto::Mds_reply create(Connection_id connection, std::uint64_t session, std::string const& path,
                          std::uint32_t norm = 1) {
    proto::Mds_request request;
    request.mutable_create()->set_path(path);
    request.mutable_create()->set_size(1ull << 30);
    request.mutable_create()->mutable_attributes()->set_replicas_norm(norm);
    request.mutable_create()->mutable_attributes()->set_replicas_min(1);
    return command(connection, session, request);
  }
  /// A server that is registered through a connection of its own.
  struct Played_cs {
    Connection_id connection;
    std::uint32_t id = 0;
    std::uint64_t session = 0;
    std::uint32_t incarnation = 1;
    std::uint64_t free_bytes = 90ull << 30;
    std::uint32_t stalled_ms = 0;
  };
  Played_cs add_server(Connection_id tool, std::uint64_t tool_session) {
    proto::Mds_request request;
    request.mutable_create_cs()->set_host_id(100 + ++servers_);
    Played_cs cs;
    cs.id = command(tool, tool_session, request).created_cs().cs();
    cs.session = 1000 + cs.id;
    attach(cs);
    return cs;
  }
  proto::Mds_reply attach(Played_cs& cs) {
    cs.connection = connect(Role::cs, "csd");
    sequences_[cs.session] = 0;
    ++cs.session;
    open_session(cs.connection, cs.session, "csd");
    return register_cs(cs);
  }
  proto::Mds_reply register_cs(Played_cs const& cs) {
    proto::Mds_request request;
    auto& command = *request.mutable_register_cs();
    command.set_cs(cs.id);
    command.set_repository_uuid("repository-" + std::to_string(cs.id));
    command.set_incarnation(cs.incarnation);
    command.add_addresses("127.0.0.1:" + std::to_string(20000 + cs.id));
    command.set_host_id(100 + cs.id);
    command.set_host_name("host" + std::to_string(cs.id));
    command.set_total_bytes(100ull << 30);
    command.set_free_bytes(90ull << 30);
    return this->command(cs.connection, cs.session, request);
  }
  proto::Mds_reply cs_heartbeat(Played_cs const& cs) {
    proto::Mds_request request;
    request.set_session(cs.session);
    auto& beat = *request.mutable_cs_heartbeat();
    beat.set_cs(cs.id);
    beat.set_incarnation(cs.incarnation);
    beat.set_total_bytes(100ull << 30);
    beat.set_free_bytes(cs.free_bytes);
    beat.set_stalled_ms(cs.stalled_ms);
    return ask(cs.connection, request);
  }
  std::string cs_state(std::uint32_t cs) {
    Rows rows(server_->state().database(), "SELECT state FROM cs WHERE id = ?");
    rows.bind(1, cs);
    return rows.next() ? rows.text(0) : "";
  }
  static Errc status(proto::Mds_reply const& reply) { return static_cast<Errc>(reply.status()); }

  sim::Event_queue queue_;
  std::vector<std::function<void()>> turns_;  // what waits for later turns of the server's loop
  std::uint64_t apply_rows_max_ = 1;
  bool has_turns_ = true;  // they come
  Test_random random_;
  Quiet_log log_;
  sim::Sim_disk disk_{queue_, random_};
  Fake_network network_;
  std::unique_ptr<raft::Raft_node> entries_;
  std::unique_ptr<Metadata_server> server_;
  std::string fatal_;
  std::uint64_t reserve_ = 0;
  std::uint64_t connections_ = 0;
  std::uint64_t requests_ = 0;
  std::uint64_t servers_ = 0;
  std::map<std::uint64_t, std::uint64_t> sequences_;
  std::map<Connection_id, std::vector<proto::Mds_push>> pushes_;
};

}  // namespace pstorage::mds
