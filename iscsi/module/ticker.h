// A coarse clock in tgtd's loop: one timer for all deadlines of the module.
#pragma once

#include <cstdint>
#include <vector>

namespace pstorage::iscsi {

inline constexpr std::uint32_t tick_ms = 100;
inline constexpr std::uint32_t ticks_per_second = 1000 / tick_ms;

class Tick_listener {
 public:
  virtual void on_tick() = 0;

 protected:
  ~Tick_listener() = default;
};

/// The timer exists while somebody listens, so a tgtd without our LUNs does not wake for us.
/// Thread: tgtd's loop. A listener may leave in its own on_tick(), not in another one's.
class Ticker {
 public:
  static Ticker& instance();
  /// False: no timer could be made (out of descriptors); logged.
  bool add(Tick_listener& listener);
  void remove(Tick_listener& listener);

 private:
  static void on_timer(int fd, int events, void* self);

  int fd_ = -1;
  std::vector<Tick_listener*> listeners_;
};

}  // namespace pstorage::iscsi
