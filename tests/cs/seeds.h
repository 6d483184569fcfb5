// Which seeds the randomized tests run: --seed N, --count N.
#pragma once

#include <cstdint>

namespace pstorage::cs {

struct Seeds {
  std::uint64_t first = 1;
  std::uint64_t count = 300;
};
Seeds& seeds();

}  // namespace pstorage::cs
