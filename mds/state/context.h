// What a command sees while it is applied: the database, the stamped time and randomness, and where
// it notes what the rest of the system must hear of.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/env/network.h"
#include "core/env/random.h"
#include "core/ids.h"
#include "mds/planner/placement.h"
#include "mds/state/database.h"

namespace pstorage::mds {

/// Numbers that follow from the entry's seed alone, so that every member draws the same.
class Entry_random final : public Random {
 public:
  explicit Entry_random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() override {
    state_ += 0x9e3779b97f4a7c15ULL;
    auto mixed = (state_ ^ (state_ >> 30)) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL;
    return mixed ^ (mixed >> 31);
  }

 private:
  std::uint64_t state_;
};

/// A lease that somebody else ended.
struct Lost_lease {
  Session_id session;
  File_id file;
  Epoch epoch;
  std::string taken_by;
};

/// What a batch of commands changed, for the server to tell others. Sets, so that their order does
/// not depend on anything but their content.
struct Effects {
  std::set<std::pair<File_id, Chunk_id>> map_changes;  // to push to the lease holder
  std::set<std::pair<Cs_id, Chunk_id>> sync_orders;    // to push to the CS, if still syncing
  std::set<File_id> leases;                            // granted, ended or sealed
  std::vector<Lost_lease> lost_leases;
  std::set<Cs_id> servers;        // row changed
  std::set<Session_id> sessions;  // opened or gone
  std::set<Cs_id> garbage;        // has chunks to delete
  // Syncs that have ended without success (chunk, newcomer): not to be started again at once.
  std::set<std::pair<Chunk_id, Cs_id>> failed_syncs;
  bool members_changed = false;   // metadata servers
  std::set<File_id> minimums;     // another MIN of replicas=, another on-full=: for the holder
  std::set<Cs_id> slow;           // dropped by a writer for answering far slower than its peers
  std::uint64_t syncs_done = 0;   // replicas that have become complete
  bool replicas_changed = false;  // the recovery planner should look
  bool config_changed = false;

  void merge(Effects&& other);
};

struct Context {
  Database& database;
  std::uint64_t wall_ms = 0;
  Random& random;
  Role role = Role::client;
  Session_id session;
  std::vector<Space_report> const& space;
  Effects& effects;
};

/// Result of one command: nothing, or the line for the asker.
using Applied = Outcome<void>;

}  // namespace pstorage::mds
