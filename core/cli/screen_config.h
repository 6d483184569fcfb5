// pstorage.conf: how top and stat show things on this host.
#pragma once

#include <string>
#include <vector>

#include "core/cli/status_lines.h"
#include "core/result.h"

namespace pstorage::cli {

struct Screen_config {
  bool is_numeric = false;       // numeric.addrs
  unsigned refresh_ms = 2000;    // refresh.time
  std::vector<Sort_key> mds;     // mds.sort
  std::vector<Sort_key> cs;      // cs.sort
  std::vector<Sort_key> client;  // clnt.sort
};

inline constexpr unsigned refresh_ms_min = 100;
inline constexpr unsigned refresh_ms_max = 3'600'000;

/// Pure. NAME=VALUE a line; empty lines and those that begin with # count for nothing. Errors:
/// bad_request, with the line.
Outcome<Screen_config> parse_screen_config(std::string const& text);
/// Of etc_root()/pstorage.conf; the defaults when there is none.
Outcome<Screen_config> load_screen_config();

}  // namespace pstorage::cli
