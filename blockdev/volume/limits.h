// How fast a volume may be used: token buckets. Pure: time comes in.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "core/env/clock.h"
#include "core/result.h"

namespace pstorage::volume {

/// As stored with the volume. 0: no limit.
struct Limits {
  std::uint64_t iops = 0;               // requests a second
  std::uint64_t bytes_per_s = 0;        // read and written together
  std::uint64_t burst_s = burst_s_min;  // as much as in so many seconds may come at once

  static constexpr std::uint64_t burst_s_min = 1;
  static constexpr std::uint64_t burst_s_max = 3600;
  bool operator==(Limits const&) const = default;
  bool is_any() const { return iops != 0 || bytes_per_s != 0; }
};

/// From and to the properties of a volume. What cannot be understood is no limit.
Limits limits_of(std::map<std::string, std::string> const& properties);
/// An empty value removes a property.
std::map<std::string, std::string> properties_of(Limits const& limits);

/// Fills up at `rate` a second to `rate * burst_s`. Whoever comes while it is not empty may go, and
/// may take more than there is: the next one waits until that is paid back. So a request of any
/// size gets through, and the rate holds.
class Token_bucket {
 public:
  void set(std::uint64_t rate, std::uint64_t burst_s, Time_point now);
  bool may_take(Time_point now);
  void take(double cost) { level_ -= cost; }

 private:
  double rate_ = 0;  // 0: everything may go
  double capacity_ = 0;
  double level_ = 0;
  Time_point last_{};
};

class Rate_limiter {
 public:
  void set(Limits const& limits, Time_point now);
  bool is_active() const { return limits_.is_any(); }
  Limits const& limits() const { return limits_; }
  /// May a request that moves `bytes` go now? Then it is counted.
  bool admit(Time_point now, std::uint64_t bytes);

 private:
  Limits limits_;
  Token_bucket requests_;
  Token_bucket bytes_;
};

}  // namespace pstorage::volume
