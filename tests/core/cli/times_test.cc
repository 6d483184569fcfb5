#include "core/cli/times.h"

#include <gtest/gtest.h>

#include <ctime>

namespace pstorage::cli {
namespace {

constexpr std::uint64_t now_ms = 1'800'000'000'000;

std::uint64_t local_ms(int year, int month, int day, int hour, int minute, int second) {
  std::tm parts{};
  parts.tm_year = year - 1900;
  parts.tm_mon = month - 1;
  parts.tm_mday = day;
  parts.tm_hour = hour;
  parts.tm_min = minute;
  parts.tm_sec = second;
  parts.tm_isdst = -1;
  return static_cast<std::uint64_t>(std::mktime(&parts)) * 1000;
}

TEST(Times, A_moment_is_an_age_or_a_date) {
  EXPECT_EQ(parse_moment("30m", now_ms).value(), now_ms - 1'800'000);
  EXPECT_EQ(parse_moment("2d", now_ms).value(), now_ms - 172'800'000);
  EXPECT_EQ(parse_moment("0", now_ms).value(), now_ms);
  EXPECT_EQ(parse_moment("900d", 1000).value(), 0u);
  EXPECT_EQ(parse_moment("2026-01-31", now_ms).value(), local_ms(2026, 1, 31, 0, 0, 0));
  EXPECT_EQ(parse_moment("2026-07-31 12:34", now_ms).value(), local_ms(2026, 7, 31, 12, 34, 0));
  EXPECT_EQ(parse_moment("2026-01-31 12:34:56", now_ms).value(), local_ms(2026, 1, 31, 12, 34, 56));
}

TEST(Times, What_is_neither_is_refused_with_examples) {
  for (auto const* bad :
       {"", "yesterday", "5", "-1h", "2026-13-01", "2026-01-31 25:00", "12:34x"}) {
    auto const moment = parse_moment(bad, now_ms);
    ASSERT_FALSE(moment.has_value()) << bad;
    EXPECT_NE(moment.error().text.find("12h"), std::string::npos) << moment.error().text;
  }
}

}  // namespace
}  // namespace pstorage::cli
