// Exit codes of pstorage-ploop: those of ploop (libploop.h).
#pragma once

#include <string>

#include "core/result.h"

namespace pstorage::ploop {

enum class Exit {
  ok = 0,
  failed = 1,  // creating something
  open = 4,
  read = 6,
  write = 7,
  format = 11,  // the image is damaged
  lock = 23,
  in_use = 37,
  parameter = 38,
  descriptor = 39,
  no_snapshot = 43,
};

/// A failure that ends the command with `code`.
Failure exit_with(Exit code, std::string text);
/// The same line, another code.
inline Failure exit_with(Exit code, Failure const& failure) {
  return exit_with(code, failure.text);
}
/// The code a failure ends the command with.
int exit_code(Failure const& failure);

}  // namespace pstorage::ploop
