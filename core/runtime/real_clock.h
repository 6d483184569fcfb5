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

/// The time of the current turn of a loop: read from the system when it is first asked for in a
/// turn, and always outside of turns. Thread: the loop's.
class Turn_clock final : public Clock {
 public:
  Time_point now() const override {
    if (is_known_) return now_;
    now_ = real_.now();
    is_known_ = in_turn_;
    return now_;
  }
  std::uint64_t wall_ms() const override { return real_.wall_ms(); }
  void begin_turn() {
    in_turn_ = true;
    is_known_ = false;
  }
  void end_turn() { in_turn_ = is_known_ = false; }

 private:
  Real_clock real_;
  bool in_turn_ = false;
  mutable bool is_known_ = false;
  mutable Time_point now_;
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
