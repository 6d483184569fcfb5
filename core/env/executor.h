// "Soon, but not now": callbacks that must not run inside the call that asked for them.
#pragma once

#include <functional>

namespace pstorage {

class Executor {
 public:
  virtual ~Executor() = default;
  /// Runs `work` on the owner's loop, after the current event and before the loop sleeps.
  virtual void defer(std::function<void()> work) = 0;
};

}  // namespace pstorage
