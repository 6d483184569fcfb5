// A lease that the MDS has given and nobody here has, or wants any more, goes back: it would keep
// everybody from the file for as long as this process lives.
#include "tests/core/client/fake_servers.h"

namespace pstorage::client {
namespace {

/// Answers requests to open a file when told so.
class Late_mds final : public Fake_mds {
 public:
  explicit Late_mds(sim::Sim_node& node) : Fake_mds(node, 1, {}) {}

  void on_message(Connection_id connection, Message& message) override {
    if (holds_opens && parsed<proto::Mds_request>(message).has_open_file())
      held_.push_back(std::move(message));
    else
      Fake_mds::on_message(connection, message);
  }
  void answer_opens() {
    holds_opens = false;
    node_.run([this] {
      for (Message& message : held_) Fake_mds::on_message(client_, message);
    });
  }
  bool holds_opens = false;
  std::vector<proto::Close_file> closed;
  std::vector<std::pair<std::uint64_t, bool>> commands;  // sequence, opens the file

 private:
  void on_request(proto::Mds_request const& request) override {
    if (request.has_close_file()) closed.push_back(request.close_file());
    if (request.sequence() > 1) commands.emplace_back(request.sequence(), request.has_open_file());
  }
  std::vector<Message> held_;
};

class Opening : public Fake_cluster {
 protected:
  Opening() : mds_(world_.add_node("mds", Role::mds, {1})) { node_.start({&cluster_}); }

  /// What opening the file comes to; timed_out: nothing yet.
  std::shared_ptr<Errc> start_opening() {
    auto const status = std::make_shared<Errc>(Errc::timed_out);
    node_.run([&] {
      cluster_.open("/volumes/v", {}, [this, status](Outcome<std::unique_ptr<Volume>> opened) {
        *status = opened.has_value() ? Errc::ok : errc_of(opened.error().code);
        if (opened.has_value()) volume_ = std::move(opened).value();
      });
    });
    return status;
  }

  static proto::Mds_request closing_nothing() {
    proto::Mds_request request;
    request.mutable_close_file();
    return request;
  }

  Late_mds mds_;
};

TEST_F(Opening, A_lease_that_comes_when_nobody_waits_for_it_any_more_is_given_back) {
  mds_.holds_opens = true;
  auto const status = start_opening();
  run(std::chrono::seconds(60));
  EXPECT_EQ(*status, Errc::unavailable);
  EXPECT_TRUE(mds_.closed.empty());
  mds_.answer_opens();
  run(std::chrono::milliseconds(100));
  ASSERT_EQ(mds_.closed.size(), 1u);
  EXPECT_EQ(mds_.closed[0].file(), fake_file);
  EXPECT_EQ(mds_.closed[0].epoch(), 1u);
  EXPECT_FALSE(mds_.closed[0].unsettled());
  EXPECT_EQ(*start_opening(), Errc::timed_out);
  run(std::chrono::milliseconds(100));
  EXPECT_NE(volume_, nullptr);
}

// It might take the file from whoever has it by then.
TEST_F(Opening, Nothing_is_opened_any_more_when_nobody_waits_for_it) {
  node_.run([&] { cluster_.mds().call(closing_nothing(), {}, [](auto const&) {}); });
  run(std::chrono::seconds(1));
  mds_.is_silent = true;
  auto const status = start_opening();
  run(std::chrono::seconds(60));
  EXPECT_EQ(*status, Errc::unavailable);
  mds_.is_silent = false;
  run(std::chrono::seconds(5));
  // Called off under its own number: an MDS that had carried it out would say so.
  std::vector<std::pair<std::uint64_t, bool>> const expected{{2, false}, {3, false}};
  EXPECT_EQ(mds_.commands, expected);
}

TEST_F(Opening, A_lease_whose_file_could_not_be_fenced_is_given_back_as_it_was_found) {
  mds_.leases_sealed = false;
  mds_.seal_status = Errc::refused;
  auto const status = start_opening();
  run(std::chrono::seconds(1));
  EXPECT_EQ(*status, Errc::refused);
  ASSERT_EQ(mds_.closed.size(), 1u);
  EXPECT_TRUE(mds_.closed[0].unsettled());
}

TEST_F(Opening, A_file_is_closed_also_when_the_answer_takes_longer_than_anybody_waits) {
  start_opening();
  run(std::chrono::seconds(1));
  ASSERT_NE(volume_, nullptr);
  mds_.is_silent = true;
  Errc closed = Errc::timed_out;
  node_.run([&] {
    volume_->close([&closed](Result<void> done) {
      closed = done.has_value() ? Errc::ok : errc_of(done.error());
    });
  });
  run(std::chrono::seconds(8));
  EXPECT_EQ(closed, Errc::ok);
  EXPECT_TRUE(mds_.closed.empty());
  mds_.is_silent = false;
  run(std::chrono::seconds(5));
  ASSERT_FALSE(mds_.closed.empty());
  EXPECT_EQ(mds_.closed.back().file(), fake_file);
}

}  // namespace
}  // namespace pstorage::client
