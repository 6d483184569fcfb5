// Which replicas are synced next: pure, from what the state machine and the heartbeats say.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "core/ids.h"
#include "mds/planner/placement.h"

namespace pstorage::mds {

/// A chunk with fewer in-sync replicas than its norm. Given in order of need.
struct Needy_chunk {
  Chunk_id chunk;
  Version version;
  std::uint32_t norm = 1;
  Failure_domain domain = Failure_domain::host;
  std::uint32_t tier = 0;
  std::uint64_t chunk_bytes = 0;
  std::vector<Cs_id> in_sync;
  std::vector<Cs_id> syncing;
  std::vector<Cs_id> stale;
  std::vector<Cs_id> garbage;  // servers that still have to delete an old replica of it
  std::vector<Cs_id> resting;  // servers where a sync of it has just failed
};

struct Recovery_limits {
  std::uint32_t syncs_per_cs = 8;  // replicas that one server pulls at a time
  std::uint32_t syncs_total = 64;
};

struct Sync_choice {
  Chunk_id chunk;
  Version version;
  Cs_id cs;
};

/// Is automatic replication onto new servers allowed? Not while more hosts are offline than
/// `offline_hosts_max`: that is a network or power failure, not broken disks.
bool replication_allowed(std::vector<Candidate> const& candidates, std::uint64_t offline_hosts_max);

/// Chooses syncs to start: first stale replicas whose server is back (little to copy), then, where
/// no server that is merely inactive may still return with one, new servers. `busy`: syncs under
/// way by server.
std::vector<Sync_choice> plan_recovery(std::vector<Needy_chunk> const& chunks,
                                       std::vector<Candidate> const& candidates,
                                       std::map<Cs_id, std::uint32_t> busy,
                                       Recovery_limits const& limits, Placement_rules const& rules,
                                       std::uint64_t offline_hosts_max, Random& random);

}  // namespace pstorage::mds
