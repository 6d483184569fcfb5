// Average and maximum of a duration over the last 20 seconds, in slots of one second.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/env/clock.h"

namespace pstorage {

/// Pure. Thread: the owner's loop.
class Latency {
 public:
  void add(Time_point now, Duration value) {
    Slot& slot = slot_of(now);
    ++slot.count;
    slot.sum += value;
    slot.maximum = std::max(slot.maximum, value);
  }
  struct Summary {
    std::uint32_t average_us = 0;
    std::uint32_t maximum_us = 0;
  };
  Summary summary(Time_point now) const {
    std::uint64_t count = 0;
    Duration sum{0}, maximum{0};
    for (Slot const& slot : slots_) {
      if (slot.count == 0 || second_of(now) - slot.second >= seconds) continue;
      count += slot.count;
      sum += slot.sum;
      maximum = std::max(maximum, slot.maximum);
    }
    auto const us = [](Duration value) {
      return static_cast<std::uint32_t>(value / std::chrono::microseconds(1));
    };
    return {count == 0 ? 0 : us(sum / static_cast<Duration::rep>(count)), us(maximum)};
  }

 private:
  static constexpr std::int64_t seconds = 20;
  struct Slot {
    std::int64_t second = 0;
    std::uint64_t count = 0;
    Duration sum{0};
    Duration maximum{0};
  };
  static std::int64_t second_of(Time_point now) {
    return now.since_start / std::chrono::seconds(1);
  }
  Slot& slot_of(Time_point now) {
    Slot& slot = slots_[static_cast<std::size_t>(second_of(now) % seconds)];
    if (slot.second != second_of(now)) slot = {second_of(now), 0, {}, {}};
    return slot;
  }
  std::array<Slot, seconds> slots_{};
};

}  // namespace pstorage
