// Randomness and a log for tests.
#pragma once

#include <string>
#include <vector>

#include "core/env/random.h"
#include "core/log.h"

namespace pstorage::mds {

class Test_random final : public Random {
 public:
  explicit Test_random(std::uint64_t seed = 1) : state_(seed) {}
  std::uint64_t next() override {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_ * 0x2545f4914f6cdd1dULL;
  }

 private:
  std::uint64_t state_;
};

/// Keeps errors for the test to look at.
class Quiet_log final : public Log {
 public:
  void write(Log_level level, std::string_view message, Fields) override {
    if (level == Log_level::error) errors.emplace_back(message);
  }
  std::vector<std::string> errors;
};

}  // namespace pstorage::mds
