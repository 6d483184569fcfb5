#include "mds/planner/servers.h"

#include <algorithm>

namespace pstorage::mds {

double percent_full(Candidate const& candidate) {
  if (candidate.total_bytes == 0) return 100;
  auto const free = std::min(candidate.free_bytes, candidate.total_bytes);
  return 100.0 * static_cast<double>(candidate.total_bytes - free) /
         static_cast<double>(candidate.total_bytes);
}

Servers::Servers(std::vector<Candidate> const& candidates) : candidates_(candidates) {
  for (auto const& candidate : candidates) by_id_.emplace(candidate.cs, &candidate);
}

Candidate const* Servers::find(Cs_id cs) const {
  auto const found = by_id_.find(cs);
  return found == by_id_.end() ? nullptr : found->second;
}

bool Servers::is_active(Cs_id cs) const {
  auto const* const candidate = find(cs);
  return candidate != nullptr && candidate->state == "active";
}

bool Servers::is_staying(Cs_id cs) const {
  auto const* const candidate = find(cs);
  return candidate != nullptr && !candidate->releasing && candidate->state != "failed";
}

bool Servers::is_expected(Cs_id cs) const {
  auto const* const candidate = find(cs);
  return is_staying(cs) && !candidate->given_up &&
         (candidate->state == "active" || candidate->state == "inactive");
}

Sync_slots::Sync_slots(std::map<Cs_id, std::uint32_t> busy, Recovery_limits const& limits)
    : busy_(std::move(busy)), limits_(limits) {
  for (auto const& [cs, count] : busy_) total_ += count;
}

std::uint32_t Sync_slots::count(Cs_id cs) const {
  auto const found = busy_.find(cs);
  return found == busy_.end() ? 0 : found->second;
}

std::vector<Cs_id> Sync_slots::without_slot() const {
  std::vector<Cs_id> full;
  for (auto const& [cs, count] : busy_) {
    if (count >= limits_.syncs_per_cs) full.push_back(cs);
  }
  return full;
}

void Sync_slots::take(Chunk_id chunk, Version version, Cs_id cs) {
  choices_.push_back({chunk, version, cs});
  ++busy_[cs];
  ++total_;
}

}  // namespace pstorage::mds
