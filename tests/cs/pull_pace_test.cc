#include "cs/pull_pace.h"

#include <gtest/gtest.h>

namespace pstorage::cs {
namespace {

constexpr double megabyte = 1 << 20;

/// A server whose clients wait longer the more is copied: twice as long at `capacity` bytes a
/// second. Whoever wants to copy takes whatever is allowed, in pieces.
class Pace : public testing::Test {
 protected:
  /// Lets `time` pass; bytes copied a second.
  double run(Duration time, bool has_clients, bool copies) {
    auto const end = now_ + time;
    double copied = 0;
    for (auto const begin = now_; now_ < end;) {
      now_ = now_ + std::chrono::milliseconds(10);
      pace_.advance(now_);
      double in_tick = 0;
      while (copies && in_tick < piece * 64 && pace_.may_take()) {
        pace_.took(piece);
        in_tick += piece;
      }
      copied += in_tick;
      recent_ = 0.8 * recent_ + 0.2 * in_tick * 100;
      auto const latency = base_us_ * (1 + recent_ / capacity_);
      worst_ = std::max(worst_, latency);
      sum_ += latency;
      ++count_;
      if (has_clients) pace_.client_served(std::chrono::microseconds(static_cast<long>(latency)));
      static_cast<void>(begin);
    }
    return copied / std::chrono::duration<double>(time).count();
  }
  double average() {
    auto const value = sum_ / count_;
    sum_ = count_ = 0;
    return value;
  }
  static constexpr std::uint64_t piece = 256 << 10;
  Pull_pace pace_;
  Time_point now_{};
  double base_us_ = 200;
  double capacity_ = 100 * megabyte;
  double recent_ = 0;
  double worst_ = 0;
  double sum_ = 0;
  double count_ = 0;
};

TEST_F(Pace, Without_clients_there_is_no_limit) {
  EXPECT_GT(run(std::chrono::seconds(5), false, true), 1000 * megabyte);
}

TEST_F(Pace, Clients_wait_little_longer_and_the_copying_uses_what_that_leaves) {
  run(std::chrono::seconds(5), true, false);
  average();
  run(std::chrono::seconds(10), true, true);  // finds its rate
  average();
  auto const rate = run(std::chrono::seconds(60), true, true);
  EXPECT_LT(average(), 1.35 * base_us_);
  EXPECT_GT(rate, 0.1 * capacity_);
}

TEST_F(Pace, Copying_that_begins_beside_clients_begins_gently) {
  run(std::chrono::seconds(5), true, false);
  EXPECT_LT(run(std::chrono::milliseconds(500), true, true), 6 * megabyte);
  EXPECT_LT(worst_, 1.3 * base_us_);
}

TEST_F(Pace, It_also_works_when_clients_come_in_the_middle_of_a_copy) {
  run(std::chrono::seconds(5), false, true);
  run(std::chrono::seconds(15), true, true);
  average();
  auto const rate = run(std::chrono::seconds(60), true, true);
  EXPECT_LT(average(), 1.35 * base_us_);
  EXPECT_GT(rate, 0.1 * capacity_);
}

TEST_F(Pace, A_server_that_gets_slower_by_itself_is_measured_again) {
  run(std::chrono::seconds(5), true, false);
  run(std::chrono::seconds(20), true, true);
  base_us_ = 1000;  // the clients do more, or the disk is worse now
  run(std::chrono::minutes(3), true, true);
  EXPECT_GT(run(std::chrono::seconds(30), true, true), 0.1 * capacity_);
}

TEST_F(Pace, Some_copying_goes_on_however_bad_it_is) {
  run(std::chrono::seconds(5), true, false);
  capacity_ = megabyte / 10;
  run(std::chrono::seconds(20), true, true);
  EXPECT_GT(run(std::chrono::seconds(30), true, true), 3 * megabyte);
}

}  // namespace
}  // namespace pstorage::cs
