// How long the disk has been at what it was asked for: a hung disk answers nothing, not even
// errors.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <vector>

#include "core/env/clock.h"

namespace pstorage::cs {

/// Pure. Thread: the owner's loop.
class Disk_watch {
 public:
  using Request = std::size_t;
  Request begin(Time_point now) {
    for (Request request = 0; request < begun_.size(); ++request) {
      if (begun_[request].has_value()) continue;
      begun_[request] = now;
      return request;
    }
    begun_.emplace_back(now);
    return begun_.size() - 1;
  }
  void end(Request request) { begun_[request].reset(); }
  /// Age of the oldest request under way; zero: none.
  Duration stalled(Time_point now) const {
    Duration oldest{0};
    for (auto const& begun : begun_)
      if (begun.has_value()) oldest = std::max(oldest, now - *begun);
    return oldest;
  }

 private:
  std::vector<std::optional<Time_point>> begun_;
};

}  // namespace pstorage::cs
