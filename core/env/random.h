// Randomness as the roles see it. Real: getrandom(2); simulated: from the seed.
#pragma once

#include <cstdint>

namespace pstorage {

class Random {
 public:
  virtual ~Random() = default;
  virtual std::uint64_t next() = 0;
  /// Uniform in [0, bound). bound > 0.
  std::uint64_t below(std::uint64_t bound) { return next() % bound; }
};

}  // namespace pstorage
