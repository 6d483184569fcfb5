#include "core/cli/screen_config.h"

#include <charconv>
#include <sstream>

#include "core/config/etc.h"
#include "core/disk/atomic_file.h"
#include "core/nearest.h"

namespace pstorage::cli {
namespace {

constexpr std::size_t file_bytes_max = 64u << 10;

Outcome<void> apply(Screen_config& config, std::string const& name, std::string const& value) {
  static std::vector<std::string> const names = {"numeric.addrs", "refresh.time", "mds.sort",
                                                 "cs.sort", "clnt.sort"};
  if (name == "numeric.addrs") {
    if (value != "0" && value != "1") return failure(Errc::bad_request, name + ": 0 or 1");
    config.is_numeric = value == "1";
  } else if (name == "refresh.time") {
    unsigned ms = 0;
    auto const parsed = std::from_chars(value.data(), value.data() + value.size(), ms);
    bool const is_number = parsed.ec == std::errc() && parsed.ptr == value.data() + value.size();
    if (!is_number || ms < refresh_ms_min || ms > refresh_ms_max) {
      return failure(Errc::bad_request, name + ": milliseconds from 100 to 3600000");
    }
    config.refresh_ms = ms;
  } else if (name == "mds.sort") {
    PS_TRY(config.mds, parse_sort(Table_kind::mds, value));
  } else if (name == "cs.sort") {
    PS_TRY(config.cs, parse_sort(Table_kind::cs, value));
  } else if (name == "clnt.sort") {
    PS_TRY(config.client, parse_sort(Table_kind::client, value));
  } else if (name.starts_with("freespace.threshold.")) {
    return failure(Errc::bad_request,
                   name + " holds for the whole cluster here: 'pstorage set-config " + name + "=" +
                       value + "'");
  } else {
    return failure(Errc::bad_request,
                   "unknown name '" + name + "': did you mean '" + nearest(name, names) + "'?");
  }
  return success();
}

}  // namespace

Outcome<Screen_config> parse_screen_config(std::string const& text) {
  Screen_config config;
  std::istringstream lines(text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.empty() || line[0] == '#') continue;
    auto const equals = line.find('=');
    auto const where = "line " + std::to_string(number) + ": ";
    if (equals == std::string::npos) return failure(Errc::bad_request, where + "give NAME=VALUE");
    auto const applied = apply(config, line.substr(0, equals), line.substr(equals + 1));
    if (!applied.has_value()) return failure(Errc::bad_request, where + applied.error().text);
  }
  return config;
}

Outcome<Screen_config> load_screen_config() {
  auto const path = etc_root() + "/pstorage.conf";
  auto const text = read_small_file(path, file_bytes_max);
  if (!text.has_value()) {
    if (errc_of(text.error().code) == Errc::not_found) return Screen_config{};
    return text.error();
  }
  auto config = parse_screen_config(text.value());
  if (config.has_value()) return config;
  return failure(Errc::bad_request, path + ": " + config.error().text);
}

}  // namespace pstorage::cli
