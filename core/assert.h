// PS_ASSERT: an invariant of our own code. Stays on in release; logs and aborts. Never for input.
#pragma once

namespace pstorage {
/// Prints the failed condition and aborts. Thread: any.
[[noreturn]] void assertion_failed(char const* condition, char const* file, int line);
}  // namespace pstorage

#define PS_ASSERT(condition)                                        \
  do {                                                              \
    if (!(condition)) [[unlikely]]                                  \
      ::pstorage::assertion_failed(#condition, __FILE__, __LINE__); \
  } while (false)
