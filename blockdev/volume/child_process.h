// Running other programs.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/result.h"

namespace pstorage::volume {

/// Is `program` in PATH?
bool has_program(std::string const& program);
/// Runs `words` to its end, calling `turn` all the while; its standard output. Standard error is
/// passed on. Errors: not_found (no such program), io_error (it failed; the line has its status).
Outcome<std::string> run_program(std::vector<std::string> const& words,
                                 std::function<void()> const& turn);

}  // namespace pstorage::volume
