#include "mds/server/rates.h"

#include <gtest/gtest.h>

namespace pstorage::mds {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Rates, Are_differences_of_totals_over_time) {
  Rates<2> rates;
  Time_point const start{seconds(100)};
  rates.heard({1000, 50}, start);
  EXPECT_EQ(rates.a_second(start)[0], 0u);  // of one report nothing can be told
  rates.heard({3000, 50}, start + seconds(2));
  EXPECT_EQ(rates.a_second(start + seconds(2)), (Rates<2>::Totals{1000, 0}));
}

TEST(Rates, Two_reports_that_arrive_together_count_as_one) {
  Rates<1> rates;
  Time_point const start{seconds(100)};
  rates.heard({0}, start);
  rates.heard({100}, start + seconds(1));
  rates.heard({200}, start + milliseconds(1001));
  EXPECT_EQ(rates.a_second(start + milliseconds(1001))[0], 100u);
  rates.heard({300}, start + seconds(2));
  EXPECT_EQ(rates.a_second(start + seconds(2))[0], 200u);
}

TEST(Rates, A_new_process_that_counts_from_zero_did_nothing_yet) {
  Rates<1> rates;
  Time_point const start{seconds(100)};
  rates.heard({5000}, start);
  rates.heard({10}, start + seconds(1));
  EXPECT_EQ(rates.a_second(start + seconds(1))[0], 0u);
}

TEST(Rates, Whoever_is_silent_does_nothing) {
  Rates<1> rates;
  Time_point const start{seconds(100)};
  rates.heard({0}, start);
  rates.heard({100}, start + seconds(1));
  EXPECT_EQ(rates.a_second(start + seconds(3))[0], 100u);
  EXPECT_EQ(rates.a_second(start + seconds(10))[0], 0u);
}

}  // namespace
}  // namespace pstorage::mds
