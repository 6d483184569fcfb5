// Time as the roles see it. Real: CLOCK_BOOTTIME and the wall clock; simulated: the virtual clock.
#pragma once

#include <chrono>
#include <cstdint>

namespace pstorage {

using Duration = std::chrono::nanoseconds;

/// A moment on a monotonic clock that counts while the machine sleeps; only differences mean
/// anything, and only within one process.
struct Time_point {
  Duration since_start{0};
  auto operator<=>(Time_point const&) const = default;
  friend Duration operator-(Time_point a, Time_point b) { return a.since_start - b.since_start; }
  friend Time_point operator+(Time_point a, Duration d) { return {a.since_start + d}; }
};

class Clock {
 public:
  virtual ~Clock() = default;
  /// Cheap (about 25 ns); real implementations may return the time of the current loop turn.
  virtual Time_point now() const = 0;
  /// Milliseconds since 1970, UTC. For people and logs; never for decisions.
  virtual std::uint64_t wall_ms() const = 0;
};

/// How often every role's on_tick() is called. All deadlines are checked there: a timer a request
/// would cost more than the request (facts: 750 ns against 20).
inline constexpr Duration tick_interval = std::chrono::milliseconds(10);

/// A role's share of the tick.
class Ticker {
 public:
  virtual ~Ticker() = default;
  virtual void on_tick() = 0;
};

}  // namespace pstorage
