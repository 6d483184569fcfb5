#include "core/assert.h"

#include <cstdio>
#include <cstdlib>

namespace pstorage {

void assertion_failed(char const* condition, char const* file, int line) {
  std::fprintf(stderr, "%s:%d: invariant broken: %s\n", file, line, condition);
  std::fflush(stderr);
  std::abort();
}

}  // namespace pstorage
