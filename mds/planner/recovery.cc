#include "mds/planner/recovery.h"

#include <algorithm>

namespace pstorage::mds {
namespace {

class Planner {
 public:
  Planner(std::vector<Candidate> const& candidates, std::map<Cs_id, std::uint32_t>&& busy,
          Recovery_limits const& limits)
      : candidates_(candidates), busy_(std::move(busy)), limits_(limits) {
    for (auto const& [cs, count] : busy_) total_ += count;
  }

  bool is_full() const { return total_ >= limits_.syncs_total; }
  std::string state(Cs_id cs) const {
    for (auto const& candidate : candidates_) {
      if (candidate.cs == cs) return candidate.state;
    }
    return {};
  }
  bool has_slot(Cs_id cs) const {
    auto const found = busy_.find(cs);
    return !is_full() && (found == busy_.end() || found->second < limits_.syncs_per_cs);
  }
  void choose(Needy_chunk const& chunk, Cs_id cs) {
    choices_.push_back({chunk.chunk, chunk.version, cs});
    ++busy_[cs];
    ++total_;
  }
  std::vector<Cs_id> without_slot() const {
    std::vector<Cs_id> full;
    for (auto const& [cs, count] : busy_) {
      if (count >= limits_.syncs_per_cs) full.push_back(cs);
    }
    return full;
  }
  std::vector<Sync_choice>& choices() { return choices_; }

 private:
  std::vector<Candidate> const& candidates_;
  std::map<Cs_id, std::uint32_t> busy_;
  Recovery_limits const limits_;
  std::uint32_t total_ = 0;
  std::vector<Sync_choice> choices_;
};

}  // namespace

bool replication_allowed(std::vector<Candidate> const& candidates,
                         std::uint64_t offline_hosts_max) {
  std::set<Host_id> offline;
  for (auto const& candidate : candidates) {
    if (candidate.state == "offline") offline.insert(candidate.host);
  }
  return offline.size() <= offline_hosts_max;
}

std::vector<Sync_choice> plan_recovery(std::vector<Needy_chunk> const& chunks,
                                       std::vector<Candidate> const& candidates,
                                       std::map<Cs_id, std::uint32_t> busy,
                                       Recovery_limits const& limits, Placement_rules const& rules,
                                       std::uint64_t offline_hosts_max, Random& random) {
  Planner planner(candidates, std::move(busy), limits);
  bool const may_place = replication_allowed(candidates, offline_hosts_max);
  for (auto const& chunk : chunks) {
    if (planner.is_full()) break;
    bool const has_source = std::any_of(chunk.in_sync.begin(), chunk.in_sync.end(),
                                        [&](Cs_id cs) { return planner.state(cs) == "active"; });
    auto const present = chunk.in_sync.size() + chunk.syncing.size();
    if (!has_source || present >= chunk.norm) continue;
    // The version names the set: one change of a chunk at a time.
    Cs_id returned{};
    std::size_t expected = 0;
    for (auto const cs : chunk.stale) {
      auto const state = planner.state(cs);
      bool const rests =
          std::find(chunk.resting.begin(), chunk.resting.end(), cs) != chunk.resting.end();
      if (state == "active" && !returned && !rests && planner.has_slot(cs)) returned = cs;
      if (state == "active" || state == "inactive") ++expected;
    }
    if (returned) {
      planner.choose(chunk, returned);
      continue;
    }
    if (!may_place || present + expected >= chunk.norm) continue;
    Placement_request request{
        1, 1, chunk.domain, chunk.tier, chunk.chunk_bytes, chunk.in_sync, chunk.garbage};
    request.present.insert(request.present.end(), chunk.syncing.begin(), chunk.syncing.end());
    request.excluded.insert(request.excluded.end(), chunk.stale.begin(), chunk.stale.end());
    request.excluded.insert(request.excluded.end(), chunk.resting.begin(), chunk.resting.end());
    auto const full = planner.without_slot();
    request.excluded.insert(request.excluded.end(), full.begin(), full.end());
    auto const placed = place(request, candidates, rules, random);
    if (placed.has_value()) planner.choose(chunk, placed.value().front());
  }
  return std::move(planner.choices());
}

}  // namespace pstorage::mds
