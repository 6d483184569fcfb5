// Sizes as people write and read them.
#pragma once

#include <cstdint>
#include <string>

#include "core/result.h"

namespace pstorage {

/// Bytes of "10G": digits, then nothing (bytes) or one of K M G T P (powers of 1024), either case,
/// optionally followed by B or iB. Errors: bad_request, with the reason.
Outcome<std::uint64_t> parse_size(std::string const& text);

/// As the screens show sizes: "105GB", "1.2TB", "512KB", "17B": three significant digits at most,
/// powers of 1024.
std::string format_size(std::uint64_t bytes);

}  // namespace pstorage
