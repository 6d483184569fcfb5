#include "core/cli/times.h"

#include <algorithm>
#include <charconv>
#include <ctime>

namespace pstorage::cli {

Outcome<Duration> parse_age(std::string const& text) {
  std::uint64_t number = 0;
  auto const* const end = text.data() + text.size();
  auto const [at, error] = std::from_chars(text.data(), end, number);
  auto const unit = std::string(at, end);
  std::uint64_t const seconds = unit == "d" ? 86400 : unit == "h" ? 3600 : unit == "m" ? 60 : 1;
  bool const is_known =
      unit == "d" || unit == "h" || unit == "m" || unit == "s" || (unit.empty() && number == 0);
  if (error != std::errc{} || !is_known || number > 100'000'000 / seconds)
    return failure(Errc::bad_request, "bad time '" + text + "': give one like 7d, 12h, 30m or 0");
  return Duration(std::chrono::seconds(number * seconds));
}

Outcome<std::uint64_t> parse_moment(std::string const& text, std::uint64_t now_ms) {
  if (auto const age = parse_age(text); age.has_value()) {
    auto const ms = static_cast<std::uint64_t>(age.value() / std::chrono::milliseconds(1));
    return now_ms - std::min(ms, now_ms);
  }
  for (auto const* const pattern : {"%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"}) {
    std::tm parts{};
    parts.tm_isdst = -1;
    auto const* const end = ::strptime(text.c_str(), pattern, &parts);
    if (end == nullptr || *end != '\0') continue;
    auto const seconds = std::mktime(&parts);
    if (seconds < 0) break;
    return static_cast<std::uint64_t>(seconds) * 1000;
  }
  return failure(
      Errc::bad_request,
      "bad time '" + text + "': give an age like 30m, 12h, 7d, or '2026-01-31 12:34:56'");
}

}  // namespace pstorage::cli
