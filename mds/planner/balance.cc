#include "mds/planner/balance.h"

#include <algorithm>

namespace pstorage::mds {
namespace {

// One pass looks at the chunks of this many of the fullest servers of a tier.
constexpr std::size_t sources_a_pass = 4;
constexpr std::size_t moves_a_source = 2;
constexpr double block_bytes_min = 4096;

bool contains(std::vector<Cs_id> const& list, Cs_id cs) {
  return std::find(list.begin(), list.end(), cs) != list.end();
}

std::uint32_t median_latency(std::vector<Candidate const*> const& servers,
                             std::map<Cs_id, Server_load> const& loads) {
  std::vector<std::uint32_t> known;
  for (auto const* const server : servers) {
    auto const load = loads.find(server->cs);
    if (load != loads.end() && load->second.latency_us != 0) {
      known.push_back(load->second.latency_us);
    }
  }
  if (known.empty()) return 0;
  std::nth_element(known.begin(), known.begin() + static_cast<std::ptrdiff_t>(known.size() / 2),
                   known.end());
  return known[known.size() / 2];
}

double slowness(std::uint32_t latency_us, std::uint32_t median_us, Balance_rules const& rules) {
  if (median_us == 0 || latency_us <= median_us) return 0;
  auto const excess = static_cast<double>(latency_us) / median_us - 1;
  return std::min(excess / 2, rules.latency_points_max);
}

double points(double bytes, Candidate const& server) {
  return server.total_bytes == 0 ? 0 : 100 * bytes / static_cast<double>(server.total_bytes);
}

/// May a replica go from `from` to `to` without breaking the chunk's failure domains?
bool may_move(Needy_chunk const& chunk, Candidate const& from, Candidate const& to,
              Servers const& servers) {
  if (chunk.tier != from.tier || !chunk.syncing.empty() || !contains(chunk.in_sync, from.cs)) {
    return false;
  }
  if (contains(chunk.in_sync, to.cs) || contains(chunk.stale, to.cs) ||
      contains(chunk.garbage, to.cs) || contains(chunk.resting, to.cs)) {
    return false;
  }
  auto const kept = kept_replicas(chunk, servers);
  if (kept.size() < chunk.norm || chunk.in_sync.size() != chunk.norm) return false;
  auto const key = domain_key(chunk.domain, to);
  return std::all_of(kept.begin(), kept.end(), [&](Cs_id cs) {
    return servers.is_active(cs) &&
           (cs == from.cs || domain_key(chunk.domain, *servers.find(cs)) != key);
  });
}

}  // namespace

std::vector<Balance_entry> balance_entries(std::uint32_t tier, Servers const& servers,
                                           std::map<Cs_id, Server_load> const& loads,
                                           std::vector<Move> const& moves,
                                           Balance_rules const& rules) {
  std::vector<Candidate const*> members;
  for (auto const& candidate : servers.all()) {
    if (candidate.tier == tier && candidate.usable && candidate.total_bytes != 0) {
      members.push_back(&candidate);
    }
  }
  auto const median = median_latency(members, loads);
  std::vector<Balance_entry> entries;
  for (auto const* const server : members) {
    auto const found = loads.find(server->cs);
    auto const load = found == loads.end() ? Server_load{} : found->second;
    auto const used = static_cast<double>(server->total_bytes -
                                          std::min(server->free_bytes, server->total_bytes));
    double change = 0;
    for (auto const& move : moves) {
      if (move.to == server->cs) change += static_cast<double>(move.bytes);
      if (move.from == server->cs) change -= static_cast<double>(move.bytes);
    }
    entries.push_back(
        {server,
         percent_full(*server) + points(change, *server) + slowness(load.latency_us, median, rules),
         std::max(used / std::max(load.replicas, 1u), block_bytes_min)});
  }
  std::sort(entries.begin(), entries.end(), [](Balance_entry const& a, Balance_entry const& b) {
    return a.cost != b.cost ? a.cost > b.cost : a.server->cs < b.server->cs;
  });
  return entries;
}

void plan_balance(std::uint32_t tier, Servers const& servers,
                  std::map<Cs_id, Server_load> const& loads,
                  std::function<std::vector<Needy_chunk>(Cs_id)> const& chunks_on,
                  Sync_slots& slots, Placement_rules const& placement, std::vector<Move>& moves,
                  Balance_rules const& rules) {
  auto entries = balance_entries(tier, servers, loads, moves, rules);
  if (entries.size() < 2) return;
  auto const sources = std::min(sources_a_pass, entries.size() - 1);
  for (std::size_t i = 0; i < sources; ++i) {
    auto& from = entries[i];
    if (from.cost - entries.back().cost <= rules.spread_max) break;
    std::size_t moved = 0;
    for (auto const& chunk : chunks_on(from.server->cs)) {
      if (moved == moves_a_source || slots.is_full()) break;
      auto const bytes = std::min(from.bytes_a_replica, static_cast<double>(chunk.chunk_bytes));
      // The emptiest first; the pair must be closer afterwards, not the other way round.
      for (auto to = entries.rbegin(); to != entries.rend(); ++to) {
        auto const after_from = from.cost - points(bytes, *from.server);
        auto const after_to = to->cost + points(bytes, *to->server);
        if (from.cost - to->cost <= rules.spread_max || after_to > after_from) continue;
        if (to->server->slow || !slots.has_move_slot(to->server->cs) ||
            !has_room(*to->server, chunk.chunk_bytes, placement) ||
            !may_move(chunk, *from.server, *to->server, servers)) {
          continue;
        }
        slots.take(chunk.chunk, chunk.version, to->server->cs);
        moves.push_back(
            {chunk.chunk, from.server->cs, to->server->cs, static_cast<std::uint64_t>(bytes)});
        from.cost = after_from;
        to->cost = after_to;
        ++moved;
        break;
      }
    }
  }
}

}  // namespace pstorage::mds
