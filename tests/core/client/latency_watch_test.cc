#include "core/client/latency_watch.h"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

namespace pstorage::client {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class Latency_watch_test : public testing::Test {
 protected:
  static constexpr auto flush = Answer_kind::flush;
  static constexpr auto change = Answer_kind::change;
  static constexpr auto read = Answer_kind::read;

  Latency_watch::Server& at(std::uint32_t cs) { return watch_.server(Cs_id{cs}); }
  /// Time passes; `each` says before every judgement what happened.
  void live(Duration time, std::function<void()> const& each) {
    for (auto const end = now_ + time; now_ < end;) {
      now_ = now_ + Latency_watch::interval;
      each();
      watch_.judge(now_);
    }
  }
  /// All answer in a millisecond, the slow one in `slow`.
  std::function<void()> answers(Duration slow, Answer_kind kind = Answer_kind::change) {
    return [this, slow, kind] {
      at(1).answered(kind, milliseconds(1));
      at(2).answered(kind, milliseconds(1));
      at(3).answered(kind, slow);
    };
  }
  std::function<void()> hangs(Answer_kind kind) {
    return [this, kind, since = now_] {
      at(1).answered(kind, milliseconds(1));
      at(2).answered(kind, milliseconds(1));
      at(3).set_oldest(kind, now_ - since);
    };
  }

  Latency_watch watch_;
  Time_point now_{seconds(1000)};
};

TEST_F(Latency_watch_test, A_server_that_lags_behind_its_peers_is_slow_after_three_seconds) {
  live(seconds(2), answers(milliseconds(1)));
  live(milliseconds(2500), answers(milliseconds(400)));
  EXPECT_FALSE(at(3).is_slow());
  live(seconds(1), answers(milliseconds(400)));
  EXPECT_TRUE(at(3).is_slow());
  EXPECT_FALSE(at(1).is_slow());
  EXPECT_FALSE(at(2).is_slow());
}

TEST_F(Latency_watch_test, A_hung_disk_is_seen_although_nothing_is_answered) {
  live(seconds(1), answers(milliseconds(1), flush));
  live(milliseconds(3500), hangs(flush));
  EXPECT_TRUE(at(3).is_slow());
}

TEST_F(Latency_watch_test, A_pause_shorter_than_the_patience_is_forgiven) {
  for (int round = 0; round < 20; ++round) {
    live(seconds(2), hangs(change));
    live(seconds(2), answers(milliseconds(1)));
    EXPECT_FALSE(at(3).is_slow());
  }
}

TEST_F(Latency_watch_test, Slow_is_only_what_is_slower_than_the_others) {
  live(seconds(20), [this] {
    for (std::uint32_t cs : {1u, 2u, 3u})
      at(cs).answered(change, milliseconds(cs == 3 ? 900 : 400));
  });
  EXPECT_FALSE(at(3).is_slow());
  live(seconds(20), [this] { at(4).answered(read, seconds(2)); });  // nobody to compare with
  EXPECT_FALSE(at(4).reads_lag());
}

TEST_F(Latency_watch_test, Nobody_is_judged_when_most_of_them_lag) {
  live(seconds(2), answers(milliseconds(1)));
  live(seconds(20), [this, since = now_] {
    at(1).answered(change, milliseconds(1));
    at(2).set_oldest(change, now_ - since);
    at(3).set_oldest(change, now_ - since);
  });
  EXPECT_FALSE(at(2).is_slow());
  EXPECT_FALSE(at(3).is_slow());
}

TEST_F(Latency_watch_test, Nobody_is_judged_by_a_process_that_slept) {
  live(seconds(2), answers(milliseconds(1)));
  for (int round = 0; round < 60; ++round) {
    now_ = now_ + seconds(2);
    hangs(change)();
    at(3).set_oldest(change, seconds(2));
    watch_.judge(now_);
  }
  EXPECT_FALSE(at(3).is_slow());
}

TEST_F(Latency_watch_test, It_gets_its_chance_again_and_waits_longer_each_time) {
  live(seconds(1), answers(milliseconds(1)));
  std::vector<Duration> flagged;
  for (int round = 0; round < 6; ++round) {
    live(seconds(4), answers(seconds(1)));
    ASSERT_TRUE(at(3).is_slow());
    Duration stayed{0};
    while (at(3).is_slow() && stayed < seconds(1000)) {
      live(Latency_watch::interval, [this] {
        at(1).answered(change, milliseconds(1));
        at(2).answered(change, milliseconds(1));
      });
      stayed += Latency_watch::interval;
    }
    flagged.push_back(stayed);
  }
  EXPECT_GE(flagged[0], seconds(9));
  EXPECT_LE(flagged[0], seconds(12));
  EXPECT_GT(flagged[1], flagged[0] + seconds(5));
  EXPECT_LE(flagged[5], seconds(165));
  // What keeps being as quick as the others is soon one of them again.
  live(seconds(2000), answers(milliseconds(1)));
  live(seconds(4), answers(seconds(1)));
  ASSERT_TRUE(at(3).is_slow());
  live(seconds(14), answers(milliseconds(1)));
  EXPECT_FALSE(at(3).is_slow());
}

TEST_F(Latency_watch_test, A_new_process_is_not_judged_by_the_old_one) {
  live(seconds(1), answers(milliseconds(1)));
  live(seconds(5), answers(seconds(1)));
  ASSERT_TRUE(at(3).is_slow());
  at(3).restarted();
  EXPECT_FALSE(at(3).is_slow());
}

TEST_F(Latency_watch_test, Reads_are_led_away_after_half_a_second) {
  live(seconds(1), answers(milliseconds(1), read));
  live(milliseconds(900), hangs(read));
  EXPECT_TRUE(at(3).reads_lag());
  EXPECT_FALSE(at(3).is_slow());
  EXPECT_FALSE(at(2).reads_lag());
}

TEST_F(Latency_watch_test, Hedges_come_behind_the_99th_percentile_in_bounds) {
  EXPECT_EQ(watch_.hedge_after(), milliseconds(50));
  live(seconds(1), [this] {
    for (int i = 0; i < 200; ++i) at(1).answered(read, milliseconds(i % 50 == 0 ? 30 : 4));
  });
  EXPECT_GE(watch_.hedge_after(), milliseconds(30));
  EXPECT_LE(watch_.hedge_after(), milliseconds(50));
  live(seconds(30), [this] {
    for (int i = 0; i < 200; ++i) at(1).answered(read, std::chrono::microseconds(300));
  });
  EXPECT_EQ(watch_.hedge_after(), milliseconds(10));
  // A hung server must not raise the bound for itself.
  live(seconds(30), [this] {
    for (int i = 0; i < 100; ++i)
      at(1).answered(read, i % 10 == 0 ? Duration(seconds(8)) : Duration(milliseconds(1)));
  });
  EXPECT_LE(watch_.hedge_after(), milliseconds(50));
}

TEST_F(Latency_watch_test, Never_hedges_more_than_a_few_percent) {
  int hedged = 0;
  constexpr int reads = 20'000;
  for (int i = 0; i < reads; ++i) {
    at(1).answered(read, milliseconds(1));
    hedged += watch_.take_hedge() ? 1 : 0;
  }
  EXPECT_LE(hedged, reads * 3 / 100 + 16);
  EXPECT_GE(hedged, reads * 2 / 100);
}

}  // namespace
}  // namespace pstorage::client
