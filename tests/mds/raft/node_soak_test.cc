// Raft nodes under random crashes, partitions and checkpoints: peers, snapshots and installs of the
// real node, where sim_mds drives only its core and its log.
#include <gtest/gtest.h>

#include "tests/mds/raft/node_bench.h"

namespace pstorage::mds::raft {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class Raft_node_soak : public ::testing::TestWithParam<std::uint64_t> {
 protected:
  Raft_node_soak() : bench_(voters, GetParam()), random_(GetParam()) {}

  void break_something() {
    auto const id = 1 + random_.below(voters);
    auto& host = bench_.host(id);
    switch (random_.below(6)) {
      case 0:
        host.crashes_when_installed = random_.percent(50);
        if (!host.crashes_when_installed) host.crash();
        break;
      case 1:
        bench_.isolate(id);
        break;
      case 2:
        bench_.heal();
        break;
      case 3:
      case 4:
        if (host.is_up()) host.checkpoint();
        break;
      case 5:
        for (std::uint64_t other = 1; other <= voters; ++other) start(other);
        break;
    }
  }
  void start(std::uint64_t id) {
    if (bench_.host(id).is_up()) return;
    EXPECT_EQ(bench_.host(id).start(), "") << "member " << id;
  }
  void propose_somewhere() {
    for (std::uint64_t id = 1; id <= voters; ++id) {
      auto& host = bench_.host(id);
      if (!host.is_up() || !host.node().is_leader()) continue;
      if (host.propose("word" + std::to_string(next_)).empty()) ++next_;
    }
  }

  static constexpr std::uint64_t voters = 3;
  Node_bench bench_;
  sim::Sim_random random_;
  int next_ = 0;
};

TEST_P(Raft_node_soak, Nothing_that_was_handed_out_is_lost_and_all_agree) {
  for (std::uint64_t id = 1; id <= voters; ++id) start(id);
  for (int turn = 0; turn < 400; ++turn) {
    bench_.run(milliseconds(5 + random_.below(60)));
    propose_somewhere();
    if (random_.percent(15)) break_something();
  }
  bench_.heal();
  for (std::uint64_t id = 1; id <= voters; ++id) {
    bench_.host(id).crashes_when_installed = false;
    start(id);
  }
  // The first may be lost with a leader that had been cut off.
  ASSERT_TRUE(bench_.commit("last") || bench_.commit("the-very-last"));
  ASSERT_TRUE(bench_.run_until([this] { return bench_.agree(); })) << "no convergence";
  EXPECT_EQ(bench_.ledger().fault, "");
  std::vector<std::string> all;
  for (auto const& [index, word] : bench_.ledger().words) {
    if (!word.empty()) all.push_back(word);
  }
  EXPECT_EQ(bench_.host(1).state.words, all) << "what was handed out once is there for ever";
  EXPECT_GT(all.size(), 20u);
  for (std::uint64_t id = 1; id <= voters; ++id) EXPECT_EQ(bench_.host(id).failure_text, "");
}

INSTANTIATE_TEST_SUITE_P(Seeds, Raft_node_soak, ::testing::Range<std::uint64_t>(1, 41));

}  // namespace
}  // namespace pstorage::mds::raft
