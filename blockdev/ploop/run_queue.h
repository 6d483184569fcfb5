// The loop of whoever has none: command lines, tests.
#pragma once

#include <deque>
#include <functional>
#include <utility>

#include "core/env/executor.h"

namespace pstorage::ploop {

/// Runs what was deferred, in order. One thread.
class Run_queue final : public Executor {
 public:
  void defer(std::function<void()> work) override { work_.push_back(std::move(work)); }

  /// Runs the oldest piece; false: there is none.
  bool run_one() {
    if (work_.empty()) return false;
    auto const work = std::move(work_.front());
    work_.pop_front();
    work();
    return true;
  }

 private:
  std::deque<std::function<void()>> work_;
};

}  // namespace pstorage::ploop
