#include "cs/pull_pace.h"

#include <algorithm>

namespace pstorage::cs {
namespace {

constexpr Duration interval = std::chrono::milliseconds(100);
constexpr Duration measure_every = std::chrono::seconds(10);
constexpr double rate_min = 4.0 * (1u << 20);    // repair goes on, whatever happens
constexpr double rate_start = 4.0 * (1u << 20);  // beside clients
constexpr double burst_seconds = 0.05;
constexpr double burst_min = 256 << 10;
// Of the averages here. One request in a hundred meets a piece that is being copied, on one of its
// replicas, long before the average shows it: 1.3 here is about 1.7 for the clients' p99.
constexpr double ratio_max = 1.3;
constexpr double ratio_good = 1.12;
constexpr double faster = 1.03;
// Shorter than that nobody notices; it also keeps the ratio of two tiny figures from ruling.
constexpr double baseline_min_us = 50;
constexpr double smoothing = 0.5;
constexpr unsigned quiet_intervals = 3;

}  // namespace

void Pull_pace::client_served(Duration latency) {
  sum_us_ += std::chrono::duration<double, std::micro>(latency).count();
  ++samples_;
}

void Pull_pace::took(std::uint64_t bytes) {
  allowance_ -= static_cast<double>(bytes);
  bytes_ += bytes;
}

void Pull_pace::advance(Time_point now) {
  auto const passed = std::chrono::duration<double>(now - last_).count();
  last_ = now;
  allowance_ = std::min(allowance_ + std::min(passed, 1.0) * rate_,
                        std::max(rate_ * burst_seconds, burst_min));
  if (now - interval_began_ >= interval) close_interval(now);
}

void Pull_pace::close_interval(Time_point now) {
  interval_began_ = now;
  bool const has_clients = samples_ != 0;
  idle_ = has_clients ? 0 : idle_ + 1;
  bool const has_copied = bytes_ != 0;
  auto const average =
      samples_ == 0 ? 0 : std::max(sum_us_ / static_cast<double>(samples_), baseline_min_us);
  if (!has_clients && idle_ < idle_intervals) {
    // Too few were measured to tell.
  } else if (!has_clients) {
    rate_ = std::min(rate_ * 2, rate_max);
    is_measuring_ = false;
  } else if (!has_copied) {
    // What was copied before is still being felt in the first of them.
    if (++quiet_ == quiet_intervals) {
      quiet_ = 0;
      bool const is_lower = baseline_us_ == 0 || average < baseline_us_;
      baseline_us_ = is_lower ? average : baseline_us_ + smoothing * (average - baseline_us_);
      measured_ = now;
      is_measuring_ = false;
    }
    // Copying that begins while clients are there begins gently.
    if (!is_measuring_) rate_ = std::min(rate_, rate_start);
  } else if (baseline_us_ == 0) {
    rate_ = std::min(rate_, rate_start);
    is_measuring_ = true;
  } else {
    if (average > ratio_max * baseline_us_) {
      rate_ = std::max(rate_ / 2, rate_min);
    } else if (average < ratio_good * baseline_us_) {
      rate_ = std::min(rate_ * faster, rate_max);
    }
    // From where it is felt, not from anywhere.
    rate_ = std::min(rate_, std::max(10.0 * 2 * static_cast<double>(bytes_), rate_start));
    is_measuring_ = now - measured_ >= measure_every;
  }
  if (has_copied) quiet_ = 0;
  sum_us_ = 0;
  samples_ = bytes_ = 0;
}

}  // namespace pstorage::cs
