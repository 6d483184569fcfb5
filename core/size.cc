#include "core/size.h"

#include <array>
#include <charconv>
#include <limits>
#include <string_view>

namespace pstorage {
namespace {

constexpr std::string_view unit_letters = "KMGTPE";

/// How often 1024 for the unit in `text`; -1 when it is none.
int exponent_of(std::string_view text) {
  if (text.empty() || text == "B" || text == "b") return 0;
  char const letter = text[0] >= 'a' ? static_cast<char>(text[0] - 'a' + 'A') : text[0];
  auto const found = unit_letters.substr(0, 5).find(letter);
  auto const rest = text.substr(1);
  bool const plain = rest.empty() || rest == "B" || rest == "b" || rest == "iB" || rest == "ib";
  if (found == std::string_view::npos || !plain) return -1;
  return static_cast<int>(found) + 1;
}

}  // namespace

Outcome<std::uint64_t> parse_size(std::string const& text) {
  std::uint64_t number = 0;
  auto const* end = text.data() + text.size();
  auto const [stop, error] = std::from_chars(text.data(), end, number);
  int const exponent = exponent_of({stop, static_cast<std::size_t>(end - stop)});
  if (error == std::errc::result_out_of_range)
    return failure(Errc::too_large, "size '" + text + "' is too large: below 16E is possible");
  if (error != std::errc{} || exponent < 0)
    return failure(Errc::bad_request, "bad size '" + text +
                                          "': give a whole number and K, M, G, T, P or nothing "
                                          "(bytes), like 10G");
  auto const factor = std::uint64_t{1} << (10 * exponent);
  if (number > std::numeric_limits<std::uint64_t>::max() / factor)
    return failure(Errc::too_large, "size '" + text + "' is too large: below 16E is possible");
  return number * factor;
}

std::string format_size(std::uint64_t bytes) {
  std::size_t unit = 0;
  std::uint64_t whole = bytes;
  std::uint64_t tenths = 0;
  while (whole >= 1024 && unit < unit_letters.size()) {
    tenths = whole % 1024 * 10 / 1024;  // cut, not rounded: never more than there is
    whole /= 1024;
    ++unit;
  }
  std::string text = std::to_string(whole);
  if (whole < 10 && tenths > 0) text += "." + std::to_string(tenths);
  if (unit > 0) text += unit_letters[unit - 1];
  return text + "B";
}

}  // namespace pstorage
