// Clock and Random of a real process.
#pragma once

#include "core/env/clock.h"
#include "core/env/random.h"

namespace pstorage {

/// CLOCK_BOOTTIME: counts while the machine sleeps. Thread: any.
class Real_clock final : public Clock {
 public:
  Time_point now() const override;
  std::uint64_t wall_ms() const override;
};

/// getrandom(2), fetched in blocks of 256 bytes. Thread: one.
class Real_random final : public Random {
 public:
  std::uint64_t next() override;

 private:
  static constexpr unsigned numbers = 32;
  std::uint64_t pool_[numbers];
  unsigned left_ = 0;
};

}  // namespace pstorage
