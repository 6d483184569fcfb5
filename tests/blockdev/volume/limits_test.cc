#include "blockdev/volume/limits.h"

#include <gtest/gtest.h>

#include "blockdev/volume/names.h"

namespace pstorage::volume {
namespace {

using std::chrono::milliseconds;

/// Requests of `bytes` that get through in `seconds`, asked for every millisecond.
std::uint64_t admitted(Rate_limiter& limiter, Time_point& now, unsigned seconds,
                       std::uint64_t bytes) {
  std::uint64_t count = 0;
  for (unsigned i = 0; i < seconds * 1000; ++i, now = now + milliseconds(1))
    while (limiter.admit(now, bytes) && count < 1'000'000) ++count;
  return count;
}

TEST(Limits, The_rate_holds_and_a_pause_is_paid_back_up_to_the_burst) {
  Rate_limiter limiter;
  Time_point now{std::chrono::hours(1)};
  limiter.set({.iops = 100, .bytes_per_s = 0, .burst_s = 2}, now);
  EXPECT_NEAR(static_cast<double>(admitted(limiter, now, 1, 4096)), 300, 3);  // 200 at once
  EXPECT_NEAR(static_cast<double>(admitted(limiter, now, 10, 4096)), 1000, 3);
  now = now + std::chrono::hours(1);
  EXPECT_NEAR(static_cast<double>(admitted(limiter, now, 1, 4096)), 300, 3);
}

TEST(Limits, A_request_larger_than_the_burst_gets_through_and_is_paid_for) {
  Rate_limiter limiter;
  Time_point now{std::chrono::hours(1)};
  limiter.set({.iops = 0, .bytes_per_s = 1000, .burst_s = 1}, now);
  EXPECT_TRUE(limiter.admit(now, 11'000));
  EXPECT_FALSE(limiter.admit(now + milliseconds(9'900), 1));
  EXPECT_TRUE(limiter.admit(now + milliseconds(10'100), 1));
}

TEST(Limits, The_tighter_of_two_limits_counts_and_none_is_none) {
  Rate_limiter limiter;
  Time_point now{std::chrono::hours(1)};
  limiter.set({.iops = 1000, .bytes_per_s = 40960, .burst_s = 1}, now);
  admitted(limiter, now, 5, 4096);
  EXPECT_NEAR(static_cast<double>(admitted(limiter, now, 10, 4096)), 100, 2);
  limiter.set({}, now);
  EXPECT_FALSE(limiter.is_active());
  EXPECT_TRUE(limiter.admit(now, 1 << 30));
}

TEST(Limits, Go_through_properties_and_nonsense_is_no_limit) {
  Limits const limits{.iops = 7, .bytes_per_s = 9, .burst_s = 30};
  EXPECT_EQ(limits_of(properties_of(limits)), limits);
  EXPECT_EQ(properties_of({}).at("limit.iops"), "");
  EXPECT_EQ(limits_of({{"limit.iops", "many"}, {"limit.burst_s", "0"}}), Limits{});
}

TEST(Names, Of_volumes_and_snapshots) {
  EXPECT_EQ(parse_volume_name("vm1").value().path(), "/volumes/vm1");
  EXPECT_EQ(parse_volume_name("a/vm1@monday").value().name, "a/vm1");
  EXPECT_EQ(parse_volume_name("a/vm1@monday").value().snapshot, "monday");
  for (auto const* const bad :
       {"", "/vm1", "vm1/", "a//b", ".", "..", "a/../b", ".new-x", "vm1@", "@x", "a\nb"})
    EXPECT_FALSE(parse_volume_name(bad).has_value()) << bad;
  EXPECT_FALSE(parse_plain_name("vm1@monday").has_value());
}

}  // namespace
}  // namespace pstorage::volume
