// Times as people write them.
#pragma once

#include <cstdint>
#include <string>

#include "core/env/clock.h"
#include "core/result.h"

namespace pstorage::cli {

/// "7d", "12h", "30m", "90s", "0". Errors: bad_request.
Outcome<Duration> parse_age(std::string const& text);
/// Milliseconds since 1970 of a moment: an age as above before `now_ms`, or "2026-01-31",
/// "2026-01-31 12:34", "2026-01-31 12:34:56" in local time. Errors: bad_request.
Outcome<std::uint64_t> parse_moment(std::string const& text, std::uint64_t now_ms);

}  // namespace pstorage::cli
