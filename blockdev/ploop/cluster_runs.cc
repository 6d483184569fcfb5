#include "blockdev/ploop/cluster_runs.h"

#include "core/assert.h"

namespace pstorage::ploop {

void Cluster_runs::add(std::uint32_t start, std::uint32_t length) {
  if (length == 0) return;
  count_ += length;
  auto next = runs_.lower_bound(start);
  PS_ASSERT(next == runs_.end() || next->first - start >= length);
  if (next != runs_.begin()) {
    auto const before = std::prev(next);
    PS_ASSERT(start - before->first >= before->second);
    if (before->first + before->second == start) {
      start = before->first;
      length += before->second;
      runs_.erase(before);
    }
  }
  if (next != runs_.end() && start + length == next->first) {
    length += next->second;
    runs_.erase(next);
  }
  runs_.emplace(start, length);
}

std::uint32_t Cluster_runs::take_first() {
  PS_ASSERT(!runs_.empty());
  auto const first = runs_.begin();
  auto const [start, length] = *first;
  runs_.erase(first);
  if (length > 1) runs_.emplace(start + 1, length - 1);
  --count_;
  return start;
}

}  // namespace pstorage::ploop
