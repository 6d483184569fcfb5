#include "mds/planner/recovery.h"

#include <algorithm>
#include <optional>
#include <tuple>

namespace pstorage::mds {
namespace {

// A tier that takes data back has to have this much more room than one that may be filled.
constexpr std::uint64_t return_margin_percent = 5;

bool contains(std::vector<Cs_id> const& list, Cs_id cs) {
  return std::find(list.begin(), list.end(), cs) != list.end();
}

void append(std::vector<Cs_id>& to, std::vector<Cs_id> const& from) {
  to.insert(to.end(), from.begin(), from.end());
}

bool has_active(std::vector<Cs_id> const& list, Servers const& servers) {
  return std::any_of(list.begin(), list.end(), [&](Cs_id cs) { return servers.is_active(cs); });
}

int liveness(Candidate const& candidate) {
  if (candidate.state == "active") return candidate.slow ? 1 : 0;
  return candidate.state == "inactive" ? 2 : 3;
}

/// Writes wait for it, so that a slow server is better than none.
bool needs_anybody(Needy_chunk const& chunk) { return chunk.need <= Need::blocked; }

/// Where one more replica of `chunk` goes beside `present`.
std::optional<Cs_id> find_place(Needy_chunk const& chunk, std::vector<Cs_id> present,
                                std::uint32_t ranks, Servers const& servers,
                                Sync_slots const& slots, Placement_rules const& rules,
                                Random& random) {
  Placement_request request{1,
                            1,
                            chunk.domain,
                            chunk.tier,
                            chunk.chunk_bytes,
                            std::move(present),
                            chunk.garbage,
                            ranks,
                            needs_anybody(chunk)};
  append(request.present, chunk.syncing);
  for (auto const* const list : {&chunk.in_sync, &chunk.stale, &chunk.resting}) {
    append(request.excluded, *list);
  }
  append(request.excluded, slots.without_slot());
  auto const placed = place(request, servers.all(), rules, random);
  if (!placed.has_value()) return std::nullopt;
  return placed.value().front();
}

}  // namespace

bool replication_allowed(std::vector<Candidate> const& candidates,
                         std::uint64_t offline_hosts_max) {
  std::set<Host_id> offline;
  for (auto const& candidate : candidates) {
    if (candidate.state == "offline") offline.insert(candidate.host);
  }
  return offline.size() <= offline_hosts_max;
}

std::vector<Cs_id> kept_replicas(Needy_chunk const& chunk, Servers const& servers) {
  std::vector<Candidate const*> staying;
  for (auto const cs : chunk.in_sync) {
    if (servers.is_staying(cs)) staying.push_back(servers.find(cs));
  }
  std::sort(staying.begin(), staying.end(), [&](Candidate const* a, Candidate const* b) {
    auto const key = [&](Candidate const* one) {
      return std::tuple(liveness(*one), tier_rank(chunk.tier, one->tier), percent_full(*one),
                        one->cs);
    };
    return key(a) < key(b);
  });
  std::vector<Cs_id> kept;
  std::set<std::string> domains;
  for (auto const* const candidate : staying) {
    if (kept.size() == chunk.norm) break;
    if (domains.insert(domain_key(chunk.domain, *candidate)).second) kept.push_back(candidate->cs);
  }
  return kept;
}

void plan_recovery(std::vector<Needy_chunk> chunks, Servers const& servers, Sync_slots& slots,
                   Placement_rules const& rules, std::uint64_t offline_hosts_max, Random& random) {
  std::stable_sort(chunks.begin(), chunks.end(),
                   [](Needy_chunk const& a, Needy_chunk const& b) { return a.need < b.need; });
  bool const may_place = replication_allowed(servers.all(), offline_hosts_max);
  for (auto const& chunk : chunks) {
    if (slots.is_full()) break;
    if (!has_active(chunk.in_sync, servers)) continue;  // no source
    auto const kept = kept_replicas(chunk, servers);
    auto present = kept.size();
    for (auto const cs : chunk.syncing) present += servers.is_staying(cs) ? 1 : 0;
    if (present >= chunk.norm) continue;
    // The version names the set: one change of a chunk at a time.
    Cs_id returned{};
    std::size_t expected = 0;
    for (auto const cs : chunk.stale) {
      if (!servers.is_expected(cs)) continue;
      ++expected;
      // What a slow server holds up would only be dropped again.
      bool const is_wanted = !servers.find(cs)->slow || needs_anybody(chunk);
      bool const can_start =
          servers.is_active(cs) && is_wanted && !contains(chunk.resting, cs) && slots.has_slot(cs);
      if (can_start && !returned) returned = cs;
    }
    if (returned) {
      slots.take(chunk.chunk, chunk.version, returned);
      continue;
    }
    if (!may_place || present + expected >= chunk.norm) continue;
    auto const place = find_place(chunk, kept, tier_max + 1, servers, slots, rules, random);
    if (place) slots.take(chunk.chunk, chunk.version, *place);
  }
}

void plan_tiers(std::vector<Needy_chunk> const& chunks, Servers const& servers, Sync_slots& slots,
                Placement_rules const& rules, Random& random) {
  auto spare = rules;
  spare.fill_margin_percent += return_margin_percent;
  for (auto const& chunk : chunks) {
    if (slots.is_full()) break;
    auto kept = kept_replicas(chunk, servers);
    if (kept.size() < chunk.norm || !chunk.syncing.empty()) continue;
    auto const rank = [&](Cs_id cs) { return tier_rank(chunk.tier, servers.find(cs)->tier); };
    auto const worst = std::max_element(kept.begin(), kept.end(),
                                        [&](Cs_id a, Cs_id b) { return rank(a) < rank(b); });
    auto const worst_rank = rank(*worst);
    if (worst_rank == 0 || !has_active(chunk.in_sync, servers)) continue;
    kept.erase(worst);
    auto const place = find_place(chunk, kept, worst_rank, servers, slots, spare, random);
    if (place) slots.take(chunk.chunk, chunk.version, *place);
  }
}

std::vector<Removal> plan_removals(std::vector<Needy_chunk> const& chunks, Servers const& servers) {
  std::vector<Removal> removals;
  for (auto const& chunk : chunks) {
    if (!chunk.syncing.empty()) continue;
    auto const kept = kept_replicas(chunk, servers);
    auto const live = static_cast<std::size_t>(
        std::count_if(kept.begin(), kept.end(), [&](Cs_id cs) { return servers.is_active(cs); }));
    if (live < chunk.norm) continue;
    Removal removal{chunk.chunk, chunk.version, chunk.stale};
    for (auto const cs : chunk.in_sync) {
      if (!contains(kept, cs)) removal.servers.push_back(cs);
    }
    if (!removal.servers.empty()) removals.push_back(std::move(removal));
  }
  return removals;
}

}  // namespace pstorage::mds
