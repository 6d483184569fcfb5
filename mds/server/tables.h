// What the leader knows without the log: who was heard of when, which connection reaches whom.
// Lost with the process; rebuilt from the database and the next heartbeats.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/env/clock.h"
#include "core/env/network.h"
#include "core/ids.h"
#include "mds.pb.h"
#include "mds/planner/slow_watch.h"
#include "mds/server/rates.h"
#include "mds/state/chunks.h"

namespace pstorage::mds {

struct Session_memory {
  Time_point last_heard;
  Connection_id connection;    // 0: not heard of since the start
  bool is_expiring = false;    // proposed
  std::uint64_t told_mds = 0;  // generation of mds_clients that it knows
  proto::Heartbeat counters;   // its files are not kept
  Rates<5> rates;              // reads, bytes, writes, bytes, flushes
};

struct Cs_memory {
  std::string state;         // as in the database
  std::string proposed;      // state change under way
  Connection_id connection;  // registered in this process; 0 = none
  std::uint32_t incarnation = 0;
  Time_point last_heartbeat;
  Time_point away_since;     // not active since
  Time_point last_pushed;    // garbage and sync orders
  bool is_deleting = false;  // Delete_chunks sent, answer awaited
  proto::Cs_heartbeat stats;
  Rates<6> rates;                    // reads, bytes, writes, bytes, syncs, pulled bytes
  std::int64_t clock_offset_ms = 0;  // its clock minus ours
};

struct Lease_memory {
  Session_id session;
  Epoch epoch;
  bool settling = false;
};

/// A sync that has failed is started again after a pause that doubles from failure to failure:
/// where the newcomer cannot be reached by the writer each attempt costs two versions of the chunk.
struct Setback {
  Time_point until;
  Duration pause;
};

/// Thread: the owner's loop. Ordered maps: decisions walk them, and must not depend on hashing.
struct Leader_tables {
  std::map<Session_id, Session_memory> sessions;
  std::map<Cs_id, Cs_memory> servers;
  std::map<File_id, Lease_memory> leases;
  std::map<std::pair<Chunk_id, Cs_id>, Setback> setbacks;
  Slow_watch slow;
  std::vector<std::string> mds_clients;  // where clients reach the metadata servers
  std::uint64_t mds_generation = 0;
  std::uint64_t scrub_period_s = 0;  // cs.scrub-period
  std::uint32_t log_level = 0;       // cs.log.level

  /// Reads everything; all timeouts count from `now`.
  void load(Database& database, Time_point now);
  void load_settings(Database& database);
  void refresh_session(Database& database, Session_id session, Time_point now);
  void refresh_server(Database& database, Cs_id cs, Time_point now);
  void refresh_lease(Database& database, File_id file);

  void note_failed_sync(Chunk_id chunk, Cs_id cs, Time_point now);
  /// Servers on which a sync of `chunk` should not be started yet.
  std::vector<Cs_id> resting(Chunk_id chunk, Time_point now) const;
  /// A server that has just come (back) is tried at once.
  void forget_setbacks_of(Cs_id cs);
  /// Forgets setbacks that are long over.
  void forget_setbacks(Time_point now);
  /// The connection of a file's lease holder; 0 = none.
  Connection_id holder_connection(File_id file) const;
  /// Free space as the heartbeats say, and who is slow, for the entries that place replicas.
  std::vector<Space_report> space() const;
};

}  // namespace pstorage::mds
