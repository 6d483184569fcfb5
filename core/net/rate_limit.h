// Keeps a stream of similar log lines short.
#pragma once

#include <cstdint>

#include "core/env/clock.h"

namespace pstorage {

/// Allows `lines_max` a second and counts the rest.
class Rate_limit {
 public:
  explicit Rate_limit(unsigned lines_max = 10) : lines_max_(lines_max) {}

  /// May a line be written now? `suppressed`: how many were not since the last one that was.
  bool allow(Time_point now, std::uint64_t& suppressed) {
    if (!started_ || now - second_ >= std::chrono::seconds(1)) {
      started_ = true;
      second_ = now;
      lines_ = 0;
    }
    if (lines_ >= lines_max_) {
      ++suppressed_;
      return false;
    }
    ++lines_;
    suppressed = suppressed_;
    suppressed_ = 0;
    return true;
  }

 private:
  unsigned lines_max_;
  bool started_ = false;
  Time_point second_{};
  unsigned lines_ = 0;
  std::uint64_t suppressed_ = 0;
};

}  // namespace pstorage
