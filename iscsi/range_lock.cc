#include "iscsi/range_lock.h"

#include <algorithm>

namespace pstorage::iscsi {
namespace {

bool conflict(Lock_range const& a, Lock_range const& b) {
  return (a.is_exclusive || b.is_exclusive) && a.begin < b.end && b.begin < a.end;
}

}  // namespace

bool Range_lock::is_free_before(std::size_t index) const {
  for (std::size_t i = 0; i < index; ++i) {
    if (conflict(*ranges_[i], *ranges_[index])) return false;
  }
  return true;
}

bool Range_lock::acquire(Lock_range& range) {
  ranges_.push_back(&range);
  range.holds = is_free_before(ranges_.size() - 1);
  return range.holds;
}

void Range_lock::release(Lock_range& range, std::vector<Lock_range*>& granted) {
  auto const found = std::find(ranges_.begin(), ranges_.end(), &range);
  if (found == ranges_.end()) return;
  auto const first = static_cast<std::size_t>(found - ranges_.begin());
  ranges_.erase(found);
  range.holds = false;
  for (std::size_t i = first; i < ranges_.size(); ++i) {
    auto& waiter = *ranges_[i];
    if (waiter.holds || !conflict(waiter, range) || !is_free_before(i)) continue;
    waiter.holds = true;
    granted.push_back(&waiter);
  }
}

}  // namespace pstorage::iscsi
