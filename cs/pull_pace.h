// How fast replicas are copied from and to this server while clients are served. Pure: latencies
// and time go in, an allowance comes out.
#pragma once

#include <cstdint>

#include "core/env/clock.h"

namespace pstorage::cs {

/// Keeps the clients' p99 within twice of what it is without copying. Without clients there is no
/// limit. The latency without copying is measured again and again: for three
/// tenths of a second every ten seconds nothing is copied.
class Pull_pace {
 public:
  /// A client's request was answered after `latency`; some of them suffice.
  void client_served(Duration latency);
  /// Time has passed.
  void advance(Time_point now);
  /// May the next piece be copied now?
  bool may_take() const { return allowance_ > 0 && !is_measuring_; }
  void took(std::uint64_t bytes);
  /// Was a client served lately?
  bool has_clients() const { return idle_ < idle_intervals; }
  /// Bytes a second at present.
  double rate() const { return rate_; }

 private:
  void close_interval(Time_point now);

  double rate_ = rate_max;
  double allowance_ = rate_max / 100;
  double baseline_us_ = 0;  // 0: not known
  double sum_us_ = 0;       // of this interval
  std::uint64_t samples_ = 0;
  std::uint64_t bytes_ = 0;
  unsigned idle_ = idle_intervals;  // intervals without clients
  unsigned quiet_ = 0;              // intervals without copying, one behind the other
  bool is_measuring_ = false;
  Time_point last_{};
  Time_point interval_began_{};
  Time_point measured_{};

  static constexpr unsigned idle_intervals = 5;  // without a client: there is none
  static constexpr double rate_max = 2.0 * (1u << 30);
};

}  // namespace pstorage::cs
