// Virtual time as the simulated disk (and later network) needs it: run something later.
#pragma once

#include <functional>
#include <map>
#include <utility>

#include "core/env/clock.h"

namespace pstorage::sim {

/// Orders everything that happens in a simulated run. One thread.
class Sim_scheduler {
 public:
  virtual ~Sim_scheduler() = default;
  virtual Time_point now() const = 0;
  /// Runs `work` after `delay`; equal moments keep the order of the calls.
  virtual void at(Duration delay, std::function<void()> work) = 0;
};

/// The plain one: a queue by (time, order of submission).
class Event_queue final : public Sim_scheduler, public Clock {
 public:
  Time_point now() const override { return now_; }
  std::uint64_t wall_ms() const override {
    return 1'700'000'000'000ULL +
           static_cast<std::uint64_t>(now_.since_start / std::chrono::milliseconds(1));
  }
  void at(Duration delay, std::function<void()> work) override {
    events_.emplace(std::pair(now_ + delay, order_++), std::move(work));
  }
  /// Runs the next event; false when there is none.
  bool step() {
    if (events_.empty()) return false;
    auto event = events_.extract(events_.begin());
    now_ = event.key().first;
    event.mapped()();
    return true;
  }
  /// Runs everything up to `moment`, which becomes now.
  void run_until(Time_point moment) {
    while (!events_.empty() && events_.begin()->first.first <= moment) step();
    if (now_ < moment) now_ = moment;
  }
  bool is_empty() const { return events_.empty(); }

 private:
  Time_point now_{};
  std::uint64_t order_ = 0;
  std::map<std::pair<Time_point, std::uint64_t>, std::function<void()>> events_;
};

}  // namespace pstorage::sim
