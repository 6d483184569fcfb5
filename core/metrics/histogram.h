// Durations counted in fixed buckets: what the data path may afford (no lock, no allocation).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/env/clock.h"

namespace pstorage {

/// Thread: the owner's.
class Latency_histogram {
 public:
  /// Upper ends of the buckets, in microseconds; the last bucket, behind them, has none.
  static constexpr std::array<std::uint32_t, 16> bounds_us = {
      50,     100,    200,     500,     1'000,   2'000,     5'000,     10'000,
      20'000, 50'000, 100'000, 200'000, 500'000, 1'000'000, 2'000'000, 5'000'000};

  void add(Duration value) {
    auto const us = static_cast<std::uint64_t>(value / std::chrono::microseconds(1));
    std::size_t bucket = 0;
    while (bucket < bounds_us.size() && us > bounds_us[bucket]) ++bucket;
    ++counts_[bucket];
    sum_ += value;
  }

  /// How many fell into bucket `index` (not cumulative).
  std::uint64_t count(std::size_t index) const { return counts_[index]; }
  Duration sum() const { return sum_; }

 private:
  std::array<std::uint64_t, bounds_us.size() + 1> counts_{};
  Duration sum_{0};
};

/// Requests of one kind: how many of them there were is the count of their histogram.
struct Io_counters {
  Latency_histogram latency;
  std::uint64_t bytes = 0;

  void add(Duration took, std::uint64_t count) {
    latency.add(took);
    bytes += count;
  }
};

}  // namespace pstorage
