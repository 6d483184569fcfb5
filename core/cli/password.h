// Passwords from a terminal or from standard input. Never from the command line, where others see
// them.
#pragma once

#include <string>

#include "core/result.h"

namespace pstorage::cli {

/// One line of standard input (`from_stdin`), else asked for on the terminal without echo, and a
/// second time with `confirm`. Errors: bad_request (empty, too long, different, no terminal).
Outcome<std::string> read_password(bool from_stdin, bool confirm);

}  // namespace pstorage::cli
