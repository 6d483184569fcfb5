// What clients ask of each other about a file: DESIGN 4.
#include "tests/core/client/fake_servers.h"

namespace pstorage::client {
namespace {

class Asking_mds final : public Fake_mds {
 public:
  explicit Asking_mds(sim::Sim_node& node) : Fake_mds(node, 1, {}) {}
  void ask(std::uint64_t question, std::uint64_t file) {
    proto::Mds_push asked;
    asked.mutable_question()->set_question(question);
    asked.mutable_question()->set_file(file);
    asked.mutable_question()->mutable_request()->mutable_lend();
    push(asked);
  }
  std::vector<proto::Holder_answer> answers;

 private:
  void on_request(proto::Mds_request const& request) override {
    if (request.has_holder_answer()) answers.push_back(request.holder_answer());
  }
};

class Questions : public Fake_cluster {
 protected:
  Questions() : mds_(world_.add_node("mds", Role::mds, {1})) {
    cluster_.set_holder_handler(
        [this](Volume* volume, proto::Holder_request const&, Cluster::Holder_answer const& answer) {
          asked_.push_back(volume);
          if (!is_known_ && volume != nullptr) return false;
          answer(volume != nullptr ? Outcome<void>(success())
                                   : failure(Errc::not_found, "it was closed just now"));
          return true;
        });
  }
  void SetUp() override { ASSERT_NO_FATAL_FAILURE(open()); }
  std::uint32_t status(std::size_t index) const { return mds_.answers.at(index).status(); }

  Asking_mds mds_;
  bool is_known_ = true;
  std::vector<Volume*> asked_;
};

TEST_F(Questions, Of_an_open_file_are_answered_at_once) {
  mds_.ask(5, fake_file);
  run(std::chrono::milliseconds(100));
  ASSERT_EQ(mds_.answers.size(), 1u);
  EXPECT_EQ(mds_.answers[0].question(), 5u);
  EXPECT_EQ(status(0), 0u);
}

TEST_F(Questions, Of_a_file_whose_volume_is_still_being_opened_wait_for_it) {
  is_known_ = false;
  mds_.ask(5, fake_file);
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
  mds_.ask(5, fake_file);
  run(std::chrono::seconds(1));
  volume_.reset();
  run(std::chrono::milliseconds(100));
  ASSERT_EQ(mds_.answers.size(), 1u);
  EXPECT_EQ(status(0), static_cast<std::uint32_t>(Errc::not_found));
}

TEST_F(Questions, Of_a_file_that_is_no_volume_are_refused_in_the_end) {
  is_known_ = false;
  mds_.ask(5, fake_file);
  run(std::chrono::seconds(30));
  ASSERT_EQ(mds_.answers.size(), 1u);
  EXPECT_EQ(status(0), static_cast<std::uint32_t>(Errc::refused));
}

}  // namespace
}  // namespace pstorage::client
