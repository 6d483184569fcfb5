// Which replicas are synced next: pure, from what the state machine and the heartbeats say.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "core/ids.h"
#include "mds/planner/placement.h"
#include "mds/planner/servers.h"

namespace pstorage::mds {

/// How much a chunk needs the planner, most first.
enum class Need : std::uint8_t {
  pending,   // blocked, and a client holds the file open: it may be waiting
  blocked,   // fewer up-to-date replicas than the minimum
  urgent,    // just the minimum
  degraded,  // fewer than the norm
  leaving,   // complete, but a replica is on a server that is being released or has failed
  misplaced  // complete, but not where its attributes want it
};

/// A chunk that is not as it should be.
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
  Need need = Need::degraded;
};

/// Is automatic replication onto new servers allowed? Not while more hosts are offline than
/// `offline_hosts_max`: that is a network or power failure, not broken disks.
bool replication_allowed(std::vector<Candidate> const& candidates, std::uint64_t offline_hosts_max);

/// The up-to-date replicas that are to stay: on staying servers, one a failure domain, at most
/// norm; preferably active ones, in the right tier, on less full servers.
std::vector<Cs_id> kept_replicas(Needy_chunk const& chunk, Servers const& servers);

/// Chooses syncs to start, in order of need: first stale replicas whose server is back (little to
/// copy), then, where no server that is merely inactive may still return with one, new servers.
/// Slow ones only for chunks whose writes wait.
void plan_recovery(std::vector<Needy_chunk> chunks, Servers const& servers, Sync_slots& slots,
                   Placement_rules const& rules, std::uint64_t offline_hosts_max, Random& random);

/// Complete chunks with a replica in another tier than asked: the worst one moves when a nearer
/// tier has room again (with some to spare, so that it does not spill back at once).
void plan_tiers(std::vector<Needy_chunk> const& chunks, Servers const& servers, Sync_slots& slots,
                Placement_rules const& rules, Random& random);

/// Replicas to be taken out of the set of one chunk.
struct Removal {
  Chunk_id chunk;
  Version version;
  std::vector<Cs_id> servers;
};

/// Replicas that are too many: once norm kept ones are in sync on active servers, all others (and
/// what a failed sync has left). Not while a sync of the chunk is under way.
std::vector<Removal> plan_removals(std::vector<Needy_chunk> const& chunks, Servers const& servers);

}  // namespace pstorage::mds
