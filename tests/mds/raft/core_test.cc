#include <gtest/gtest.h>

#include "mds/raft/raft_core.h"
#include "tests/mds/raft/lab.h"

namespace pstorage::mds::raft {
namespace {

using Words = std::vector<std::string>;

TEST(Raft_core, One_voter_leads_and_commits_at_its_own_sync) {
  Lab lab(1);
  lab.hold_disk(1, true);
  lab.core(1).campaign();
  lab.turn(1);
  EXPECT_FALSE(lab.core(1).is_leader()) << "its vote is not durable yet";
  lab.sync_one(1);
  ASSERT_TRUE(lab.core(1).is_leader());
  lab.propose(1, "a");
  EXPECT_TRUE(lab.commands(1).empty());
  lab.hold_disk(1, false);
  EXPECT_EQ(lab.commands(1), Words{"a"});
}

TEST(Raft_core, A_command_is_committed_with_a_majority_and_reaches_all) {
  Lab lab(3);
  ASSERT_TRUE(lab.elect(1));
  lab.isolate(3);
  lab.propose(1, "a");
  lab.deliver_all();
  EXPECT_EQ(lab.commands(1), Words{"a"});
  lab.heal();
  lab.run(3);
  EXPECT_EQ(lab.commands(2), Words{"a"});
  EXPECT_EQ(lab.commands(3), Words{"a"});
  EXPECT_EQ(lab.checker().fault(), "");
}

TEST(Raft_core, A_leader_without_a_majority_commits_nothing_and_steps_down) {
  Lab lab(3);
  ASSERT_TRUE(lab.elect(1));
  lab.isolate(1);
  EXPECT_TRUE(lab.propose(1, "a"));
  lab.run(25);
  EXPECT_TRUE(lab.commands(1).empty());
  EXPECT_FALSE(lab.core(1).is_leader());
  EXPECT_TRUE(lab.has_stepped_down(1)) << "the shell must call the outcome of \"a\" unknown";
  EXPECT_FALSE(lab.propose(1, "b"));
}

TEST(Raft_core, A_member_that_hears_nobody_does_not_raise_the_term) {
  Lab lab(3);
  ASSERT_TRUE(lab.elect(1));
  lab.isolate(3);
  lab.run(100);
  lab.heal();
  lab.run(10);
  EXPECT_TRUE(lab.core(1).is_leader());
  EXPECT_EQ(lab.core(3).term(), 1u);
  EXPECT_EQ(lab.core(3).leader(), Member_id{1});
}

TEST(Raft_core, The_others_elect_a_leader_when_theirs_is_gone) {
  Lab lab(3);
  ASSERT_TRUE(lab.elect(1));
  lab.propose(1, "a");
  lab.deliver_all();
  lab.crash(1);
  ASSERT_TRUE(lab.elect(2));
  lab.propose(2, "b");
  lab.deliver_all();
  EXPECT_EQ(lab.commands(2), (Words{"a", "b"}));
  lab.restart(1);
  lab.run(5);
  EXPECT_EQ(lab.commands(1), (Words{"a", "b"}));
  EXPECT_EQ(lab.checker().fault(), "");
}

TEST(Raft_core, A_conflicting_suffix_is_replaced_in_few_round_trips) {
  Lab lab(3, {.append_bytes_max = 1});
  ASSERT_TRUE(lab.elect(1));
  lab.isolate(1);
  for (int i = 0; i < 50; ++i) lab.propose(1, "lost " + std::to_string(i));
  ASSERT_TRUE(lab.elect(2));
  for (int i = 0; i < 50; ++i) lab.propose(2, "kept " + std::to_string(i));
  lab.deliver_all();
  lab.heal();
  int rejections = 0;
  lab.hold([&rejections](Raft_message const& message) {
    bool const is_of_1 = message.kind == Message_kind::append_reply && message.from.value == 1;
    if (is_of_1 && message.is_reject) ++rejections;
    return false;
  });
  lab.run(10);
  EXPECT_EQ(lab.commands(1), lab.commands(2));
  EXPECT_EQ(lab.commands(1).size(), 50u);
  EXPECT_LE(rejections, 4) << "one for the term, one a term of conflict, not one an entry";
  EXPECT_EQ(lab.checker().fault(), "");
}

TEST(Raft_core, Appends_are_pipelined_within_the_window) {
  Lab lab(3, {.append_bytes_max = 1, .window = {.messages_max = 4, .bytes_max = 1u << 20}});
  ASSERT_TRUE(lab.elect(1));
  lab.hold([](Raft_message const& message) { return message.to.value == 2; });
  for (int i = 0; i < 20; ++i) lab.propose(1, "x");
  lab.deliver_all();
  auto const held = lab.release();
  EXPECT_EQ(held.size(), 4u);
  for (auto const& message : held) lab.deliver(message);
  lab.deliver_all();
  lab.run(2);
  EXPECT_EQ(lab.commands(2).size(), 20u);
}

TEST(Raft_core, Lost_appends_are_sent_again) {
  Lab lab(3);
  ASSERT_TRUE(lab.elect(1));
  lab.run(2);
  lab.hold([](Raft_message const& message) {
    return message.kind == Message_kind::append && message.to.value == 2;
  });
  lab.propose(1, "a");
  lab.deliver_all();
  lab.release();
  lab.run(4);
  EXPECT_EQ(lab.commands(2), Words{"a"});
}

TEST(Raft_core, A_leader_takes_only_so_many_uncommitted_bytes) {
  Lab lab(3, {.uncommitted_bytes_max = 1000});
  ASSERT_TRUE(lab.elect(1));
  lab.isolate(1);
  int taken = 0;
  while (taken < 100 && lab.propose(1, std::string(100, 'x'))) ++taken;
  EXPECT_GT(taken, 5);
  EXPECT_LE(taken, 10);
  lab.heal();
  lab.run(3);
  EXPECT_TRUE(lab.propose(1, "y"));
}

TEST(Raft_core, Leadership_is_handed_over_on_request) {
  Lab lab(3);
  ASSERT_TRUE(lab.elect(1));
  lab.run(2);
  ASSERT_TRUE(lab.core(1).transfer(Member_id{3}).has_value());
  EXPECT_FALSE(lab.propose(1, "refused while handing over"));
  lab.deliver_all();
  EXPECT_TRUE(lab.core(3).is_leader());
  EXPECT_FALSE(lab.core(1).is_leader());
  EXPECT_FALSE(lab.core(1).transfer(Member_id{2}).has_value());
}

TEST(Raft_core, A_leader_that_is_to_be_removed_hands_over_first) {
  Lab lab(3);
  ASSERT_TRUE(lab.elect(1));
  lab.run(2);
  Change const change{Change::Kind::remove, Member_id{1}, ""};
  EXPECT_EQ(lab.core(1).change(change).error(), make_error_code(Errc::unavailable));
  lab.turn(1);
  lab.deliver_all();
  ASSERT_FALSE(lab.core(1).is_leader());
  auto const heir = lab.core(2).is_leader() ? 2u : 3u;
  lab.run(1);
  EXPECT_TRUE(lab.core(heir).change(change).has_value());
  lab.run(3);
  EXPECT_EQ(lab.core(heir).configuration().members.size(), 2u);
}

TEST(Raft_core, The_last_voter_cannot_be_removed) {
  Lab lab(1);
  lab.core(1).campaign();
  lab.turn(1);
  EXPECT_EQ(lab.core(1).change({Change::Kind::remove, Member_id{1}, ""}).error(),
            make_error_code(Errc::refused));
  EXPECT_EQ(lab.core(1).change({Change::Kind::remove, Member_id{9}, ""}).error(),
            make_error_code(Errc::not_found));
}

TEST(Raft_core, A_cluster_of_one_grows_to_three) {
  Lab lab(1);
  lab.core(1).campaign();
  lab.turn(1);
  lab.propose(1, "a");
  for (std::uint64_t const member : {2, 3}) {
    lab.add(member);
    ASSERT_TRUE(lab.core(1).change({Change::Kind::add_learner, Member_id{member}, ""}).has_value());
    lab.turn(1);
    lab.run(3);
    ASSERT_TRUE(lab.core(1).change({Change::Kind::promote, Member_id{member}, ""}).has_value());
    lab.turn(1);
    lab.run(3);
  }
  lab.crash(1);
  ASSERT_TRUE(lab.elect(2));
  EXPECT_EQ(lab.commands(2), Words{"a"});
  EXPECT_EQ(lab.checker().fault(), "");
}

TEST(Raft_core, A_read_asked_of_any_member_shows_what_was_acknowledged) {
  Lab lab(3);
  ASSERT_TRUE(lab.elect(1));
  lab.propose(1, "a");
  lab.deliver_all();
  for (std::uint64_t const member : {1, 2}) {
    auto const id = lab.core(member).read();
    ASSERT_TRUE(id.has_value());
    lab.turn(member);
    lab.deliver_all();
    auto const reads = lab.reads(member);
    ASSERT_EQ(reads.size(), 1u);
    EXPECT_EQ(reads[0].id, id.value());
    EXPECT_TRUE(reads[0].is_ok);
    EXPECT_GE(reads[0].index, 2u);
    EXPECT_GE(lab.core(member).commit(), reads[0].index) << "the round of heartbeats brought it";
  }
}

TEST(Raft_core, A_read_that_gets_no_answer_fails) {
  Lab lab(3);
  ASSERT_TRUE(lab.elect(1));
  lab.isolate(2);
  ASSERT_TRUE(lab.core(2).read().has_value());
  lab.turn(2);
  lab.run(12);
  auto const reads = lab.reads(2);
  ASSERT_EQ(reads.size(), 1u);
  EXPECT_FALSE(reads[0].is_ok);
}

TEST(Raft_core, A_leader_whose_disk_hangs_makes_room_for_another) {
  Lab lab(3);
  ASSERT_TRUE(lab.elect(1));
  lab.hold_disk(1, true);
  lab.propose(1, "a");
  lab.run(60);
  EXPECT_FALSE(lab.core(1).is_leader());
  EXPECT_TRUE(lab.elect(2));
  EXPECT_EQ(lab.checker().fault(), "");
}

TEST(Raft_core, Malformed_messages_are_dropped) {
  Lab lab(3);
  ASSERT_TRUE(lab.elect(1));
  auto const last = lab.core(2).log().last_index();
  Raft_message message{.kind = Message_kind::append,
                       .from = Member_id{1},
                       .to = Member_id{2},
                       .term = 1,
                       .index = last,
                       .log_term = 1};
  message.entries = {{last + 2, 1, Entry_kind::command, {}}};
  lab.deliver(message);  // a gap
  message.entries = {{last + 1, 2, Entry_kind::command, {}}};
  lab.deliver(message);  // of a term that has not begun
  message.entries = {{last + 1, 1, Entry_kind::configuration, Slice::copy_of(as_bytes("?"))}};
  lab.deliver(message);
  EXPECT_EQ(lab.core(2).log().last_index(), last);
}

TEST(Raft_configuration, Survives_encoding_and_refuses_damage) {
  Configuration configuration;
  configuration.add({Member_id{7}, Member_kind::voter, "10.0.0.7:2510"});
  configuration.add({Member_id{3}, Member_kind::learner, ""});
  auto const bytes = encode_configuration(configuration);
  EXPECT_EQ(decode_configuration(as_bytes(bytes)).value(), configuration);
  EXPECT_EQ(configuration.voters(), 1u);
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(decode_configuration(as_bytes(bytes).first(length)).has_value()) << length;
  }
}

}  // namespace
}  // namespace pstorage::mds::raft
