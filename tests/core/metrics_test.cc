// Histograms and their text.
#include <gtest/gtest.h>

#include "core/metrics/metrics_text.h"

namespace pstorage::test {
namespace {

TEST(Metrics, A_duration_is_counted_in_the_bucket_that_it_fits) {
  Latency_histogram histogram;
  histogram.add(std::chrono::microseconds(50));
  histogram.add(std::chrono::microseconds(51));
  histogram.add(std::chrono::hours(1));
  EXPECT_EQ(histogram.count(0), 1u);
  EXPECT_EQ(histogram.count(1), 1u);
  EXPECT_EQ(histogram.count(Latency_histogram::bounds_us.size()), 1u);
}

TEST(Metrics, The_text_is_what_OpenMetrics_asks_for) {
  Metrics_text text;
  text.gauge("pstorage_space_bytes", "Space.");
  text.add({{"volume", "a\"b\\c\nd"}}, 7);
  text.one_counter("pstorage_requests", "Requests.", 3);
  Latency_histogram histogram;
  histogram.add(std::chrono::microseconds(150));
  histogram.add(std::chrono::seconds(10));
  text.histogram("pstorage_time_seconds", "Time.");
  text.add({{"cs", "1"}}, histogram);
  auto const got = std::move(text).finish();
  EXPECT_TRUE(
      got.starts_with("# TYPE pstorage_space_bytes gauge\n"
                      "# UNIT pstorage_space_bytes bytes\n"
                      "# HELP pstorage_space_bytes Space.\n"
                      "pstorage_space_bytes{volume=\"a\\\"b\\\\c\\nd\"} 7\n"
                      "# TYPE pstorage_requests counter\n"
                      "# HELP pstorage_requests Requests.\n"
                      "pstorage_requests_total 3\n"))
      << got;
  for (auto const* const line : {"pstorage_time_seconds_bucket{cs=\"1\",le=\"0.0001\"} 0\n",
                                 "pstorage_time_seconds_bucket{cs=\"1\",le=\"0.0002\"} 1\n",
                                 "pstorage_time_seconds_bucket{cs=\"1\",le=\"+Inf\"} 2\n",
                                 "pstorage_time_seconds_count{cs=\"1\"} 2\n",
                                 "pstorage_time_seconds_sum{cs=\"1\"} 10.00015\n"})
    EXPECT_NE(got.find(line), std::string::npos) << line;
  EXPECT_TRUE(got.ends_with("\n# EOF\n"));
}

}  // namespace
}  // namespace pstorage::test
