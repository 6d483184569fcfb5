#include "core/runtime/real_clock.h"

#include <sys/random.h>
#include <time.h>

#include "core/assert.h"

namespace pstorage {

Time_point Real_clock::now() const {
  timespec t;
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  return {std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec)};
}

std::uint64_t Real_clock::wall_ms() const {
  timespec t;
  ::clock_gettime(CLOCK_REALTIME, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1000 +
         static_cast<std::uint64_t>(t.tv_nsec) / 1'000'000;
}

std::uint64_t Real_random::next() {
  if (left_ == 0) {
    PS_ASSERT(::getrandom(pool_, sizeof pool_, 0) == static_cast<ssize_t>(sizeof pool_));
    left_ = numbers;
  }
  return pool_[--left_];
}

}  // namespace pstorage
