// Balance inside a tier: which servers give and which take. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "mds/planner/recovery.h"

namespace pstorage::mds {

/// What the heartbeats say about a server beyond its free space.
struct Server_load {
  std::uint32_t replicas = 0;
  std::uint32_t latency_us = 0;  // of its disk, average of the last 20 s; 0: not known
};

/// Moves that are decided and that free space does not show yet.
struct Move {
  Chunk_id chunk;
  Cs_id from;
  Cs_id to;
  std::uint64_t bytes = 0;  // estimated
};

struct Balance_rules {
  /// Percent points of fill by which two servers of a tier may differ.
  double spread_max = 3;
  /// A server whose disk is slower than the tier's median counts as fuller, by at most this.
  double latency_points_max = 1.5;
};

/// A server in the eyes of the balancer.
struct Balance_entry {
  Candidate const* server = nullptr;
  double cost = 0;             // percent full with the moves under way, and a bit for slowness
  double bytes_a_replica = 0;  // on average, at least one block
};

/// The entries of one tier, the fullest first. `moves` are counted as done.
std::vector<Balance_entry> balance_entries(std::uint32_t tier, Servers const& servers,
                                           std::map<Cs_id, Server_load> const& loads,
                                           std::vector<Move> const& moves,
                                           Balance_rules const& rules);

/// Chooses moves of complete chunks from full to empty servers of one tier. `chunks_on` gives some
/// chunks with a replica on a server (others on later calls). The chosen ones are taken from
/// `slots` and appended to `moves`.
void plan_balance(std::uint32_t tier, Servers const& servers,
                  std::map<Cs_id, Server_load> const& loads,
                  std::function<std::vector<Needy_chunk>(Cs_id)> const& chunks_on,
                  Sync_slots& slots, Placement_rules const& placement, std::vector<Move>& moves,
                  Balance_rules const& rules = {});

}  // namespace pstorage::mds
