#include "mds/planner/slow_watch.h"

#include <gtest/gtest.h>

#include "mds/planner/recovery.h"
#include "tests/mds/fakes.h"

namespace pstorage::mds {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class Slow_watch_test : public testing::Test {
 protected:
  /// Heartbeats of three servers each second; returns how often the third one's flag changed.
  int live(Duration time, Duration latency, Duration stalled = {}) {
    int changes = 0;
    for (auto const end = now_ + time; now_ < end;) {
      now_ = now_ + seconds(1);
      watch_.heard(Cs_id{1}, milliseconds(5), {}, now_);
      watch_.heard(Cs_id{2}, milliseconds(8), {}, now_);
      watch_.heard(Cs_id{3}, latency, stalled, now_);
      for (auto const& change : watch_.judge(now_)) {
        EXPECT_EQ(change.cs, Cs_id{3});
        EXPECT_EQ(change.is_slow, !change.reason.empty());
        ++changes;
      }
    }
    return changes;
  }
  bool is_slow() const { return watch_.is_slow(Cs_id{3}); }

  Slow_watch watch_;
  Time_point now_{seconds(1000)};
};

TEST_F(Slow_watch_test, A_disk_far_slower_than_the_others_is_slow_and_comes_back_by_itself) {
  EXPECT_EQ(live(seconds(30), milliseconds(150)), 0);
  EXPECT_EQ(live(seconds(4), milliseconds(400)), 0);
  EXPECT_EQ(live(seconds(10), milliseconds(400)), 1);
  EXPECT_TRUE(is_slow());
  EXPECT_GT(watch_.slow_for(Cs_id{3}, now_), seconds(3));
  EXPECT_EQ(live(seconds(19), milliseconds(10)), 0);
  EXPECT_EQ(live(seconds(5), milliseconds(10)), 1);
  EXPECT_FALSE(is_slow());
  EXPECT_EQ(watch_.slow_for(Cs_id{3}, now_), Duration{0});
}

TEST_F(Slow_watch_test, A_disk_that_does_not_answer_is_slow_at_once) {
  EXPECT_EQ(live(seconds(2), {}, seconds(2)), 0);
  EXPECT_EQ(live(seconds(2), {}, seconds(5)), 1);
  EXPECT_TRUE(is_slow());
}

TEST_F(Slow_watch_test, What_a_client_reports_counts_at_once) {
  watch_.reported(Cs_id{3}, now_);
  EXPECT_TRUE(is_slow());
  EXPECT_EQ(live(seconds(2), milliseconds(5)), 1);
  EXPECT_EQ(live(seconds(40), milliseconds(5)), 1);
  EXPECT_FALSE(is_slow());
}

TEST_F(Slow_watch_test, Does_not_flap) {
  int changes = 0;
  // Slow for ten seconds, quick for thirty, for half an hour.
  for (int round = 0; round < 45; ++round) {
    changes += live(seconds(10), milliseconds(500));
    changes += live(seconds(30), milliseconds(5));
  }
  EXPECT_LE(changes, 8);
  int const last = is_slow() ? 1 : 0;
  EXPECT_EQ(live(std::chrono::hours(2), milliseconds(5)), last);
  EXPECT_FALSE(is_slow());
}

TEST_F(Slow_watch_test, A_new_process_keeps_the_flag_its_time_and_no_longer) {
  live(seconds(10), milliseconds(900));
  ASSERT_TRUE(is_slow());
  watch_.restarted(Cs_id{3});
  EXPECT_TRUE(is_slow());
  live(seconds(25), {});
  EXPECT_FALSE(is_slow());
}

// ------------------------------------------------------------------ what it means to the planner

std::vector<Candidate> servers(std::uint32_t count, std::uint32_t slow) {
  std::vector<Candidate> all;
  for (std::uint32_t i = 1; i <= count; ++i) {
    Candidate one{Cs_id{i}, Host_id{i}, "", 0, 100ull << 30, 50ull << 30, true, "active"};
    one.slow = i == slow;
    all.push_back(one);
  }
  return all;
}

TEST(Slow_servers, Get_new_chunks_only_where_there_is_nobody_else) {
  Test_random random(5);
  for (int round = 0; round < 200; ++round) {
    auto const chosen =
        place({3, 2, Failure_domain::host, 0, 1 << 20, {}, {}}, servers(3, 2), {}, random);
    ASSERT_TRUE(chosen.has_value());
    EXPECT_EQ(chosen.value().size(), 2u);
    EXPECT_EQ(std::count(chosen.value().begin(), chosen.value().end(), Cs_id{2}), 0);
  }
  auto const all =
      place({3, 3, Failure_domain::host, 0, 1 << 20, {}, {}}, servers(3, 2), {}, random);
  ASSERT_TRUE(all.has_value());
  EXPECT_EQ(all.value().size(), 3u);
}

std::vector<Sync_choice> recover(std::vector<Candidate> const& all, Need need) {
  Test_random random(5);
  Servers const known(all);
  Sync_slots slots({}, {});
  Needy_chunk chunk{Chunk_id{7},
                    Version{3},
                    3,
                    Failure_domain::host,
                    0,
                    1 << 20,
                    {Cs_id{1}, Cs_id{3}},
                    {},
                    {Cs_id{2}},
                    {},
                    {},
                    need};
  plan_recovery({chunk}, known, slots, {}, 2, random);
  return slots.take_choices();
}

TEST(Slow_servers, Are_brought_up_to_date_when_they_are_healthy_or_writes_wait) {
  EXPECT_TRUE(recover(servers(4, 2), Need::urgent).empty());
  EXPECT_EQ(recover(servers(4, 0), Need::urgent).size(), 1u);
  EXPECT_EQ(recover(servers(4, 2), Need::blocked).size(), 1u);
}

TEST(Slow_servers, Are_replaced_after_a_while) {
  auto all = servers(4, 2);
  all[1].given_up = true;
  auto const choices = recover(all, Need::urgent);
  ASSERT_EQ(choices.size(), 1u);
  EXPECT_EQ(choices[0].cs, Cs_id{4});
}

}  // namespace
}  // namespace pstorage::mds
