// Which commands may run side by side: those that overlap a write wait for it. Pure.
#pragma once

#include <cstdint>
#include <vector>

namespace pstorage::iscsi {

/// A range of bytes that a command works on; lives in the command.
struct Lock_range {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;  // one past the last
  bool is_exclusive = false;
  bool holds = false;
};

/// First come, first served among those that overlap, so a stream of reads cannot starve a write.
/// It makes COMPARE AND WRITE atomic, and keeps a late write of a dropped session from landing on
/// top of a newer one. Linear in the number of commands under way (at most some hundreds).
class Range_lock {
 public:
  /// True: the range holds the lock now. False: some later release() reports it.
  bool acquire(Lock_range& range);
  /// Takes `range` out (holding or waiting); those that got the lock by that are appended.
  void release(Lock_range& range, std::vector<Lock_range*>& granted);
  bool is_empty() const { return ranges_.empty(); }

 private:
  bool is_free_before(std::size_t index) const;

  std::vector<Lock_range*> ranges_;  // in the order of their arrival
};

}  // namespace pstorage::iscsi
