// What clients ask of each other about a file: DESIGN 4.
#include <gtest/gtest.h>

#include "core/client/cluster.h"
#include "tests/sim/sim_world.h"

namespace pstorage::client {
namespace {

constexpr std::uint64_t file_id = 7;

/// An MDS that leases one file to anybody.
class Fake_mds final : public Connection_handler {
 public:
  Fake_mds(sim::Sim_node& node) : node_(node) {
    static_cast<void>(node_.listen(address(), *this));
    node_.start({});
  }
  static Address address() { return {"mds", 2511, {}}; }

  void on_connected(Connection_id connection, Peer_info const&) override { client_ = connection; }
  void on_disconnected(Connection_id, Failure const&) override {}
  void on_message(Connection_id, Message& message) override {
    proto::Mds_request request;
    ASSERT_TRUE(request.ParseFromArray(message.meta.data(), static_cast<int>(message.meta.size())));
    proto::Mds_reply reply;
    if (request.has_open_session()) reply.mutable_session()->set_timeout_ms(10000);
    if (request.has_open_file()) {
      auto& lease = *reply.mutable_lease();
      lease.set_epoch(1);
      lease.set_sealed(true);
      lease.set_clean(true);
      lease.mutable_file()->set_id(file_id);
      lease.mutable_file()->mutable_attributes()->set_chunk_size(64 << 10);
    }
    if (request.has_holder_answer()) answers.push_back(request.holder_answer());
    send(message.header.request_id, reply);
  }
  void ask(std::uint64_t question, std::uint64_t file) {
    proto::Mds_push push;
    push.mutable_question()->set_question(question);
    push.mutable_question()->set_file(file);
    push.mutable_question()->mutable_request()->mutable_lend();
    node_.run([&] { send(0, push); });
  }

  std::vector<proto::Holder_answer> answers;

 private:
  template <typename Body>
  void send(std::uint64_t id, Body const& body) {
    Message message;
    message.header.operation = Operation::control;
    message.header.is_reply = id != 0;
    message.header.request_id = id;
    message.meta = Slice::allocate(body.ByteSizeLong());
    body.SerializeToArray(message.meta.data(), static_cast<int>(message.meta.size()));
    node_.send(client_, std::move(message));
  }
  sim::Sim_node& node_;
  Connection_id client_;
};

class Questions : public testing::Test {
 protected:
  Questions()
      : world_(1, {}),
        mds_(world_.add_node("mds", Role::mds, {1})),
        node_(world_.add_node("client", Role::client, {2})),
        cluster_(node_, node_, world_.random(), world_, node_, options()) {
    node_.start({&cluster_});
    cluster_.set_holder_handler(
        [this](Volume* volume, proto::Holder_request const&, Cluster::Holder_answer const& answer) {
          asked_.push_back(volume);
          if (!is_known_ && volume != nullptr) return false;
          answer(volume != nullptr ? Outcome<void>(success())
                                   : failure(Errc::not_found, "it was closed just now"));
          return true;
        });
    node_.run([this] {
      cluster_.open("/volumes/v", {}, [this](Outcome<std::unique_ptr<Volume>> opened) {
        ASSERT_TRUE(opened.has_value());
        volume_ = std::move(opened).value();
      });
    });
    run(std::chrono::seconds(1));
    EXPECT_NE(volume_, nullptr);
  }
  ~Questions() override {
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
  std::uint32_t status(std::size_t index) const { return mds_.answers.at(index).status(); }

  sim::Sim_world world_;
  Fake_mds mds_;
  sim::Sim_node& node_;
  Cluster cluster_;
  std::unique_ptr<Volume> volume_;
  bool is_known_ = true;
  std::vector<Volume*> asked_;
};

TEST_F(Questions, Of_an_open_file_are_answered_at_once) {
  mds_.ask(5, file_id);
  run(std::chrono::milliseconds(100));
  ASSERT_EQ(mds_.answers.size(), 1u);
  EXPECT_EQ(mds_.answers[0].question(), 5u);
  EXPECT_EQ(status(0), 0u);
}

TEST_F(Questions, Of_a_file_whose_volume_is_still_being_opened_wait_for_it) {
  is_known_ = false;
  mds_.ask(5, file_id);
  run(std::chrono::seconds(3));
  EXPECT_TRUE(mds_.answers.empty());
  is_known_ = true;
  run(std::chrono::milliseconds(100));
  ASSERT_EQ(mds_.answers.size(), 1u);
  EXPECT_EQ(status(0), 0u);
  EXPECT_EQ(asked_.back(), volume_.get());
}

TEST_F(Questions, Of_a_file_that_is_closed_meanwhile_are_answered_so) {
  is_known_ = false;
  mds_.ask(5, file_id);
  run(std::chrono::seconds(1));
  volume_.reset();
  run(std::chrono::milliseconds(100));
  ASSERT_EQ(mds_.answers.size(), 1u);
  EXPECT_EQ(status(0), static_cast<std::uint32_t>(Errc::not_found));
}

TEST_F(Questions, Of_a_file_that_is_no_volume_are_refused_in_the_end) {
  is_known_ = false;
  mds_.ask(5, file_id);
  run(std::chrono::seconds(30));
  ASSERT_EQ(mds_.answers.size(), 1u);
  EXPECT_EQ(status(0), static_cast<std::uint32_t>(Errc::refused));
}

}  // namespace
}  // namespace pstorage::client
