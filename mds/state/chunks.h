// Rows of chunks, replicas, leases and servers, and the rules that keep them together.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "core/ids.h"
#include "mds/state/inodes.h"

namespace pstorage::mds {

/// How a chunk stands, in order of need. Numbers are stored: never renumber.
enum class Chunk_state : std::uint8_t {
  healthy = 0,
  blocked = 1,        // fewer in-sync replicas than min: writes wait
  urgent = 2,         // exactly min, below norm
  degraded = 3,       // below norm
  replicating = 4,    // enough with those that are being synced
  overcommitted = 5,  // more than norm, or norm and what a failed sync has left
  misplaced = 6,      // norm, but not in the tier or the failure domains that the file asks for
};
/// As in the manual, which has no word for misplaced.
inline constexpr std::array chunk_state_names = {
    "healthy", "blocked", "urgent", "degraded", "replicating", "overcommitted", "healthy"};

struct Replica_row {
  Cs_id cs;
  proto::Replica_state state = proto::REPLICA_IN_SYNC;
  bool operator==(Replica_row const&) const = default;
};

struct Chunk_row {
  Chunk_id id;
  File_id file;
  std::uint32_t position = 0;
  Version version;
  std::vector<Replica_row> replicas;  // by cs

  std::size_t count(proto::Replica_state state) const;
  Replica_row* find(Cs_id cs);
};

/// From the numbers of replicas alone: never misplaced.
Chunk_state state_of(Chunk_row const& chunk, Attribute_set const& attributes);
/// What is stored: with a look at where the replicas are.
Chunk_state placed_state_of(Database& database, Chunk_row const& chunk,
                            Attribute_set const& attributes);

std::optional<Chunk_row> load_chunk(Database& database, Chunk_id id);
std::optional<Chunk_row> find_chunk(Database& database, File_id file, std::uint32_t position);
/// A chunk's mapping, newly made at version 1 with all replicas in sync.
Chunk_row create_chunk(Context& context, Inode const& inode, std::uint32_t position,
                       std::vector<Cs_id> const& servers);
/// Stores the changed replica set under the next version, and notes whom it concerns.
void change_replicas(Context& context, Chunk_row& chunk, std::vector<Replica_row> replicas,
                     Attribute_set const& attributes);
/// Stores only the state that follows from changed attributes.
void refresh_state(Database& database, Chunk_row const& chunk, Attribute_set const& attributes);
/// The same for every chunk with a replica on `cs`, whose place has changed.
void refresh_states_on(Context& context, Cs_id cs);
/// Forgets the chunk; its replicas become garbage.
void remove_chunk(Context& context, Chunk_row const& chunk);
/// Chunks of `file` from `position` on.
void remove_chunks_from(Context& context, Inode& inode, std::uint64_t position);

/// Appends the chunk to a map, without its stale replicas: nobody may use them.
void add_to_map(Chunk_row const& chunk, proto::File_map& map);
/// Fills in the servers of every chunk of the map.
void add_servers(Database& database, proto::File_map& map);
/// All chunks of the file.
void fill_map(Database& database, File_id file, proto::File_map& map);
void fill_address(Database& database, Cs_id cs, proto::Cs_address& out);

/// Who may write a file.
struct Lease_row {
  File_id file;
  Session_id session;  // 0: the holder is gone, but may not know it
  Epoch epoch;
  bool sealed = false;  // Finish_seal has come: reads and writes are served under `epoch`
  /// No earlier writer can reach any chunk any more. Only then may a close end the lease without a
  /// trace: a resync without a writer is safe only on a file that nobody can be writing.
  bool fenced = false;
  /// Held only to make good that the last writer left without closing: nobody uses the file.
  bool settling = false;

  /// Who uses the file; 0: nobody.
  Session_id user() const { return settling ? Session_id{} : session; }
};

std::optional<Lease_row> load_lease(Database& database, File_id file);
void store_lease(Context& context, Lease_row const& lease);
void remove_lease(Context& context, File_id file);
/// The sessions that a file was taken from and that may not know it yet: its holder, its readers.
std::vector<Session_id> revoked_sessions(Database& database, File_id file);
void note_revocation(Database& database, File_id file, Session_id from);
void end_revocation(Database& database, File_id file);
/// The holder gives the lease back, or (`clean` false) has gone without a word. A file without a
/// name goes with it.
void end_lease(Context& context, Lease_row lease, bool clean);
/// The exclusive lease of (`file`, `epoch`) if the asking session holds it. Errors: stale_epoch.
Outcome<Lease_row> held_lease(Context& context, std::uint64_t file, std::uint32_t epoch);
/// "pstorage-nbd[12]@host1 on host 00000000000000ab"; empty when the session is not known.
std::string describe_session(Database& database, Session_id session);
/// The sessions that have the file open for reading, in order.
std::vector<Session_id> readers_of(Database& database, File_id file);
/// The epoch that readers have been given since the last writer closed; 0: none.
Epoch known_reading_epoch(Database& database, File_id file);
bool is_reader(Database& database, File_id file, Session_id session);
void add_reader(Context& context, File_id file, Session_id session);
/// Nothing happens when it is none. A file without a name goes with its last user.
void remove_reader(Context& context, File_id file, Session_id session);
/// Has any session it open, for reading or writing?
bool is_in_use(Database& database, File_id file);
/// Forgets inode, chunks, properties and lease of a file that has no name any more.
void delete_inode(Context& context, Inode inode);
/// Sets what `change` has. A smaller size leaves the chunks behind it mapped.
void change_inode(Context& context, Inode& inode, proto::Inode_change const& change);

/// `path`, or a real one when it begins at an inode.
std::string name_for_people(Database& database, std::string const& path, File_id file);
/// busy when a session other than the asker's holds the file's lease or reads it.
Applied refuse_leased(Context& context, File_id file, std::string const& path,
                      std::string const& what);

/// All servers, with the free space of the context's reports.
std::vector<Candidate> load_candidates(Database& database, std::vector<Space_report> const& space);
Placement_rules placement_rules(Database& database);

}  // namespace pstorage::mds
