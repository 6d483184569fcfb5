#include "core/client/read_cache.h"

#include <algorithm>

#include "core/mutant.h"

namespace pstorage::client {

std::uint64_t Fill_guard::read_begins() {
  reading_.insert(++last_);
  return last_;
}

bool Fill_guard::read_ended(std::uint64_t read, std::uint64_t offset, std::uint64_t length) {
  bool is_kept = everything_ == 0;
  for (auto part = offset / part_bytes; is_kept && part * part_bytes < offset + length; ++part)
    is_kept = !changed_.contains(part);
  reading_.erase(read);
  if (!changed_.empty() || everything_ != 0) prune();
  return is_kept || PS_MUTANT(cache_what_is_not_flushed);
}

std::uint64_t Fill_guard::change_begins(std::uint64_t offset, std::uint64_t length) {
  changing_.insert(++last_);
  auto const first = offset / part_bytes;
  auto const end = (offset + length + part_bytes - 1) / part_bytes;
  if (end - first + changed_.size() > parts_max) {
    everything_ = last_;
    changed_.clear();
  } else if (everything_ == 0) {
    for (auto part = first; part < end; ++part) changed_[part] = last_;
  } else {
    everything_ = last_;
  }
  return last_;
}

std::uint64_t Fill_guard::flush_begins() const {
  return changing_.empty() ? last_ : *changing_.begin() - 1;
}

void Fill_guard::flushed(std::uint64_t up_to) {
  flushed_ = std::max(flushed_, up_to);
  prune();
}

/// What is durable, and older than every read under way.
void Fill_guard::prune() {
  auto const known = reading_.empty() ? flushed_ : std::min(flushed_, *reading_.begin());
  if (everything_ <= known) everything_ = 0;
  std::erase_if(changed_, [known](auto const& part) { return part.second <= known; });
}

}  // namespace pstorage::client
