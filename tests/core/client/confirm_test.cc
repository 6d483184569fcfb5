// Reads of a client whom no metadata server confirms the lease: core/client/file_confirm.cc.
#include <gtest/gtest.h>

#include <optional>

#include "core/client/cluster.h"
#include "core/crc32c.h"
#include "tests/sim/sim_world.h"

namespace pstorage::client {
namespace {

constexpr std::uint64_t file_id = 7, chunk_id = 9;
constexpr std::uint32_t in_sync = 1025, newcomer = 1026;

/// A process that answers each control message with `answer` of it.
class Fake_server : public Connection_handler {
 public:
  Fake_server(sim::Sim_node& node, Address const& at) : node_(node) {
    static_cast<void>(node_.listen(at, *this));
    node_.start({});
  }
  void on_connected(Connection_id, Peer_info const&) override {}
  void on_disconnected(Connection_id, Failure const&) override {}

 protected:
  void reply(Connection_id to, Header const& asked, Slice meta, Slice data = {}) {
    Message message;
    message.header = asked;
    message.header.is_reply = true;
    message.header.incarnation = {1};
    message.meta = std::move(meta);
    message.data = std::move(data);
    node_.send(to, std::move(message));
  }
  template <typename Body>
  static Slice bytes_of(Body const& body) {
    Slice slice = Slice::allocate(body.ByteSizeLong());
    body.SerializeToArray(slice.data(), static_cast<int>(slice.size()));
    return slice;
  }
  sim::Sim_node& node_;
};

/// Leases a file of one chunk with a newcomer to anybody.
class Fake_mds final : public Fake_server {
 public:
  explicit Fake_mds(sim::Sim_node& node) : Fake_server(node, address()) {}
  static Address address() { return {"mds", 2511, {}}; }
  void on_message(Connection_id from, Message& message) override {
    proto::Mds_request request;
    ASSERT_TRUE(request.ParseFromArray(message.meta.data(), static_cast<int>(message.meta.size())));
    if (is_silent) return;
    proto::Mds_reply answer;
    if (request.has_open_session()) answer.mutable_session()->set_timeout_ms(10000);
    if (request.has_open_file()) {
      auto& lease = *answer.mutable_lease();
      lease.set_epoch(1);
      lease.set_sealed(true);
      lease.set_clean(true);
      lease.mutable_file()->set_id(file_id);
      lease.mutable_file()->set_size(64 << 10);
      lease.mutable_file()->mutable_attributes()->set_chunk_size(64 << 10);
      lease.mutable_file()->mutable_attributes()->set_replicas_min(1);
      lease.mutable_map()->set_file(file_id);
      auto& chunk = *lease.mutable_map()->add_chunks();
      chunk.set_chunk(chunk_id);
      chunk.set_version(2);
      for (auto const cs : {in_sync, newcomer}) {
        auto& replica = *chunk.add_replicas();
        replica.set_cs(cs);
        replica.set_state(cs == in_sync ? proto::REPLICA_IN_SYNC : proto::REPLICA_SYNCING);
        auto& server = *lease.mutable_map()->add_servers();
        server.set_cs(cs);
        server.set_alive(true);
        server.add_addresses("cs" + std::to_string(cs) + ":1");
      }
    }
    reply(from, message.header, bytes_of(answer));
  }
  bool is_silent = false;
};

/// Holds zeros.
class Fake_cs final : public Fake_server {
 public:
  Fake_cs(sim::Sim_node& node, std::uint32_t cs)
      : Fake_server(node, {"cs" + std::to_string(cs), 1, {}}) {}
  void on_message(Connection_id from, Message& message) override {
    if (message.header.operation == Operation::read) {
      std::size_t const blocks = message.header.length / block_bytes;
      Slice crcs = Slice::allocate(blocks * 4), data = Slice::allocate(message.header.length);
      std::memset(data.data(), 0, data.size());
      for (std::size_t i = 0; i < blocks; ++i) store_le(crcs.data() + i * 4, crc32c_of_zero_block);
      return reply(from, message.header, std::move(crcs), std::move(data));
    }
    proto::Cs_request request;
    ASSERT_TRUE(request.ParseFromArray(message.meta.data(), static_cast<int>(message.meta.size())));
    proto::Cs_reply answer;
    answer.set_incarnation(1);
    for (auto const& one : request.open_chunks().chunks()) {
      auto& opened = *answer.add_chunks();
      opened.set_chunk(one.chunk());
      opened.set_version(one.version());
    }
    if (request.seal().only_ask() && is_sealed) {
      answer.set_status(static_cast<std::uint32_t>(Errc::stale_epoch));
      answer.set_epoch(2);
    }
    reply(from, message.header, bytes_of(answer));
  }
  bool is_sealed = false;  // by a newer writer
};

class Confirm : public testing::Test {
 protected:
  Confirm()
      : world_(1, {}),
        mds_(world_.add_node("mds", Role::mds, {1})),
        old_(world_.add_node("cs1025", Role::cs, {2}), in_sync),
        new_(world_.add_node("cs1026", Role::cs, {3}), newcomer),
        node_(world_.add_node("client", Role::client, {4})),
        cluster_(node_, node_, world_.random(), world_, node_, options()) {
    node_.start({&cluster_});
    node_.run([this] {
      cluster_.open("/volumes/v", {}, [this](Outcome<std::unique_ptr<Volume>> opened) {
        ASSERT_TRUE(opened.has_value());
        volume_ = std::move(opened).value();
      });
    });
    run(std::chrono::seconds(1));
    EXPECT_NE(volume_, nullptr);
    EXPECT_EQ(read(), Errc::ok);
    mds_.is_silent = true;
    run(std::chrono::seconds(9));
  }
  ~Confirm() override {
    volume_.reset();
    node_.stop(true);
  }
  static Cluster_options options() {
    Cluster_options options;
    options.session.servers = {Fake_mds::address()};
    options.session.name = "client";
    return options;
  }
  void run(Duration time) { world_.queue().run_until(world_.now() + time); }
  /// timed_out: no answer.
  Errc read() {
    auto const result = std::make_shared<Errc>(Errc::timed_out);
    node_.run([&] {
      volume_->read(0, block_bytes, [result](Result<std::vector<Slice>> const& found) {
        *result = found.has_value() ? Errc::ok : errc_of(found.error());
      });
    });
    run(std::chrono::seconds(2));
    return *result;
  }

  sim::Sim_world world_;
  Fake_mds mds_;
  Fake_cs old_, new_;
  sim::Sim_node& node_;
  Cluster cluster_;
  std::unique_ptr<Volume> volume_;
};

TEST_F(Confirm, The_replicas_of_a_chunk_confirm_a_lease_that_no_metadata_server_does) {
  EXPECT_EQ(read(), Errc::ok);
}

// The sync of the newcomer had ended, which this client could not hear; then the other server was
// away while somebody took the volume over, and came back unsealed: sim_cluster --seed 12405.
TEST_F(Confirm, A_newcomer_may_be_the_one_that_the_next_writer_has_sealed) {
  new_.is_sealed = true;
  EXPECT_EQ(read(), Errc::stale_epoch);
}

}  // namespace
}  // namespace pstorage::client
