#include <gtest/gtest.h>

#include "mds/raft/raft_node.h"
#include "tests/mds/raft/node_bench.h"

namespace pstorage::mds::raft {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Words = std::vector<std::string>;

class Raft_nodes : public ::testing::Test {
 protected:
  void start(std::size_t voters) {
    bench_ = std::make_unique<Node_bench>(voters);
    for (std::uint64_t id = 1; id <= voters; ++id) ASSERT_EQ(bench_->host(id).start(), "");
  }
  Node_host& host(std::uint64_t id) { return bench_->host(id); }
  /// What a barrier at `id` ends with; -1: it does not end.
  std::int64_t barrier(std::uint64_t id, Duration patience = seconds(5)) {
    auto result = std::make_shared<std::int64_t>(-1);
    host(id).host().run([&] {
      host(id).node().read_barrier([result](Result<std::uint64_t> index) {
        *result = index.has_value() ? static_cast<std::int64_t>(index.value()) : -2;
      });
    });
    bench_->run_until([&] { return *result != -1; }, patience);
    return *result;
  }
  std::unique_ptr<Node_bench> bench_;
};

TEST_F(Raft_nodes, One_voter_leads_when_start_returns) {
  start(1);
  EXPECT_TRUE(host(1).node().is_leader());
  EXPECT_EQ(host(1).leaderships, std::vector<bool>{true});
  EXPECT_EQ(host(1).propose("a"), "");
  EXPECT_TRUE(host(1).state.words.empty()) << "not synced yet";
  EXPECT_TRUE(bench_->all_have({"a"}));
  EXPECT_EQ(barrier(1, milliseconds(0)), 2) << "answered from inside";
}

TEST_F(Raft_nodes, One_voter_finds_its_entries_again) {
  start(1);
  ASSERT_TRUE(bench_->commit("a"));
  ASSERT_TRUE(bench_->commit("b"));
  host(1).crash();
  ASSERT_EQ(host(1).start(), "");
  EXPECT_EQ(host(1).state.words, (Words{"a", "b"}));
  ASSERT_TRUE(bench_->commit("c"));
  EXPECT_EQ(host(1).failure_text, "");
}

TEST_F(Raft_nodes, One_voter_starts_wherever_its_segment_ends) {
  start(1);
  Words words;
  for (int i = 0; i < 40; ++i) {  // a segment takes 15 frames, a start two
    words.push_back("word" + std::to_string(i));
    ASSERT_TRUE(bench_->commit(words.back()));
    host(1).crash();
    ASSERT_EQ(host(1).start(), "");
    ASSERT_TRUE(host(1).node().is_leader());
  }
  EXPECT_EQ(host(1).state.words, words);
}

TEST_F(Raft_nodes, Three_hand_out_the_same_and_name_the_leader) {
  start(3);
  ASSERT_TRUE(bench_->commit("a"));
  ASSERT_TRUE(bench_->commit("b"));
  EXPECT_TRUE(bench_->all_have({"a", "b"}));
  auto const leader = bench_->leader();
  auto const other = leader % 3 + 1;
  EXPECT_EQ(host(other).node().leader_address(), Node_bench::address_of(leader));
  EXPECT_NE(host(other).propose("c").find(Node_bench::address_of(leader)), std::string::npos);
  EXPECT_EQ(host(leader).node().leader_address(), "");
}

TEST_F(Raft_nodes, Another_leads_when_the_leader_is_gone) {
  start(3);
  ASSERT_TRUE(bench_->commit("a"));
  auto const first = bench_->leader();
  host(first).crash();
  ASSERT_TRUE(bench_->commit("b"));
  EXPECT_NE(bench_->leader(), first);
  ASSERT_EQ(host(first).start(), "");
  EXPECT_TRUE(bench_->all_have({"a", "b"}));
}

TEST_F(Raft_nodes, A_leader_that_is_cut_off_says_that_it_leads_no_more) {
  start(3);
  ASSERT_TRUE(bench_->commit("a"));
  auto const first = bench_->leader();
  bench_->isolate(first);
  EXPECT_EQ(host(first).propose("lost"), "");
  ASSERT_TRUE(bench_->run_until([&] { return !host(first).node().is_leader(); }));
  EXPECT_EQ(host(first).leaderships, (std::vector<bool>{true, false}));
  EXPECT_EQ(host(first).state.words, Words{"a"});
  ASSERT_TRUE(bench_->commit("b"));
  bench_->heal();
  EXPECT_TRUE(bench_->all_have({"a", "b"}));
}

TEST_F(Raft_nodes, Any_member_can_tell_up_to_where_to_read) {
  start(3);
  ASSERT_TRUE(bench_->commit("a"));
  auto const leader = bench_->leader();
  for (std::uint64_t id = 1; id <= 3; ++id) {
    EXPECT_GE(barrier(id), 2);
    EXPECT_EQ(host(id).state.words, Words{"a"}) << "handed out before the barrier ends";
  }
  bench_->isolate(leader);
  EXPECT_EQ(barrier(leader), -2);
}

TEST_F(Raft_nodes, A_member_that_is_far_behind_gets_a_snapshot_in_pieces) {
  start(3);
  ASSERT_TRUE(bench_->commit("a"));
  auto const leader = bench_->leader();
  auto const late = leader % 3 + 1;
  host(late).crash();
  Words words = {"a"};
  for (int i = 0; i < 60; ++i) {
    words.push_back(std::to_string(i) + std::string(45'000, 'x'));
    ASSERT_TRUE(bench_->commit(words.back()));
  }
  for (std::uint64_t id = 1; id <= 3; ++id) {
    if (id != late) host(id).checkpoint();
  }
  ASSERT_EQ(host(late).start(), "");
  EXPECT_TRUE(bench_->all_have(words));
  EXPECT_EQ(host(late).snapshots_installed, 1u);
  ASSERT_TRUE(bench_->commit("z"));
  words.push_back("z");
  EXPECT_TRUE(bench_->all_have(words));
  host(late).crash();
  ASSERT_EQ(host(late).start(), "");
  EXPECT_TRUE(bench_->all_have(words));
}

TEST_F(Raft_nodes, A_crash_right_after_a_snapshot_is_put_in_place_does_no_harm) {
  start(3);
  ASSERT_TRUE(bench_->commit("a"));
  auto const leader = bench_->leader();
  auto const late = leader % 3 + 1;
  host(late).crash();
  Words words = {"a"};
  for (int i = 0; i < 20; ++i) {
    words.push_back("word" + std::to_string(i));
    ASSERT_TRUE(bench_->commit(words.back()));
  }
  for (std::uint64_t id = 1; id <= 3; ++id) {
    if (id != late) host(id).checkpoint();
  }
  host(late).crashes_when_installed = true;
  ASSERT_EQ(host(late).start(), "");
  ASSERT_TRUE(bench_->run_until([&] { return !host(late).is_up(); }));
  ASSERT_EQ(host(late).start(), "");
  EXPECT_TRUE(bench_->all_have(words));
}

TEST_F(Raft_nodes, A_new_member_is_taught_and_then_votes) {
  start(1);
  ASSERT_TRUE(bench_->commit("a"));
  for (std::uint64_t const id : {2, 3}) {
    ASSERT_EQ(bench_->add(id).start(), "");
    std::string why;
    ASSERT_TRUE(bench_->run_until([&] {
      auto const changed = host(1).node().add_member(id, Node_bench::address_of(id));
      why = changed.has_value() ? "" : changed.error().text;
      return why.empty();
    })) << why;
    EXPECT_TRUE(bench_->run_until([&] {
      return host(1).node().configuration().is_voter(Member_id{id}) &&
             host(id).node().configuration() == host(1).node().configuration();
    }));
  }
  ASSERT_TRUE(bench_->commit("b"));
  EXPECT_TRUE(bench_->all_have({"a", "b"}));
  host(1).crash();
  ASSERT_TRUE(bench_->commit("c"));
}

TEST_F(Raft_nodes, A_member_of_another_cluster_is_not_listened_to) {
  start(3);
  ASSERT_TRUE(bench_->commit("a"));
  auto const late = bench_->leader() % 3 + 1;
  host(late).crash();
  host(late).options.cluster_uuid = "uuid-2";
  ASSERT_EQ(host(late).start(), "");
  ASSERT_TRUE(bench_->commit("b"));
  bench_->run(seconds(2));
  EXPECT_EQ(std::count(host(late).state.words.begin(), host(late).state.words.end(), "b"), 0);
}

TEST_F(Raft_nodes, A_full_disk_refuses_commands_until_there_is_room) {
  start(1);
  bench_->run(seconds(1));
  auto& disk = host(1).disk();
  disk.set_capacity(disk.used_bytes());
  std::string why;
  Words words;
  for (int i = 0; i < 100 && why.empty(); ++i) {
    words.push_back("word" + std::to_string(i));
    why = host(1).propose(words.back());
    bench_->run(milliseconds(20));
  }
  EXPECT_NE(why.find("disk of the metadata server is full"), std::string::npos) << why;
  words.pop_back();
  EXPECT_EQ(host(1).state.words, words);
  disk.set_capacity(sim::unlimited_bytes);
  bench_->run(seconds(2));
  EXPECT_EQ(host(1).propose("room"), "");
  words.push_back("room");
  EXPECT_TRUE(bench_->all_have(words));
}

TEST_F(Raft_nodes, Commands_that_cannot_be_taken_are_refused_with_a_reason) {
  start(1);
  EXPECT_NE(host(1).propose(std::string(100'000, 'x')).find("larger than an entry"),
            std::string::npos);
}

TEST_F(Raft_nodes, A_log_that_has_lost_what_was_applied_does_not_start) {
  start(1);
  ASSERT_TRUE(bench_->commit("a"));
  host(1).crash();
  host(1).saved.applied = 100;
  EXPECT_NE(host(1).start().find("the log has lost durable entries"), std::string::npos);
}

TEST_F(Raft_nodes, A_log_that_is_gone_is_not_begun_anew) {
  start(1);
  ASSERT_TRUE(bench_->commit("a"));
  host(1).crash();
  auto const names = host(1).disk().list("raft").value();
  for (auto const& name : names) ASSERT_TRUE(host(1).disk().remove("raft/" + name).has_value());
  host(1).options.log.must_exist = true;
  host(1).saved = {};
  EXPECT_NE(host(1).start().find("its files are gone"), std::string::npos);
}

}  // namespace
}  // namespace pstorage::mds::raft
