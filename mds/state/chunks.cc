#include "mds/state/chunks.h"

#include <algorithm>
#include <set>

#include "core/assert.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

void load_replicas(Database& database, Chunk_row& chunk) {
  Rows rows(database, "SELECT cs, state FROM replica WHERE chunk = ? ORDER BY cs");
  rows.bind(1, chunk.id);
  while (rows.next()) {
    chunk.replicas.push_back({Cs_id{rows.u32(0)}, static_cast<proto::Replica_state>(rows.u64(1))});
  }
}

void add_garbage(Context& context, Chunk_id chunk, Cs_id cs) {
  // A dropped server never comes back to delete anything.
  context.database.run(
      "INSERT OR IGNORE INTO garbage(chunk, cs)"
      " SELECT ?, id FROM cs WHERE id = ? AND state <> 'dropped'",
      chunk, cs);
  context.effects.garbage.insert(cs);
}

}  // namespace

std::size_t Chunk_row::count(proto::Replica_state state) const {
  return static_cast<std::size_t>(
      std::count_if(replicas.begin(), replicas.end(),
                    [state](Replica_row const& replica) { return replica.state == state; }));
}

Replica_row* Chunk_row::find(Cs_id cs) {
  for (auto& replica : replicas) {
    if (replica.cs == cs) return &replica;
  }
  return nullptr;
}

Chunk_state state_of(Chunk_row const& chunk, Attribute_set const& attributes) {
  auto const in_sync = chunk.count(proto::REPLICA_IN_SYNC);
  auto const syncing = chunk.count(proto::REPLICA_SYNCING);
  if (in_sync < attributes.min) return Chunk_state::blocked;
  if (syncing != 0 && in_sync + syncing >= attributes.norm) return Chunk_state::replicating;
  if (in_sync > attributes.norm) return Chunk_state::overcommitted;
  if (in_sync == attributes.norm) {
    return chunk.count(proto::REPLICA_STALE) == 0 ? Chunk_state::healthy
                                                  : Chunk_state::overcommitted;
  }
  return in_sync == attributes.min ? Chunk_state::urgent : Chunk_state::degraded;
}

Chunk_state placed_state_of(Database& database, Chunk_row const& chunk,
                            Attribute_set const& attributes) {
  auto const state = state_of(chunk, attributes);
  if (state != Chunk_state::healthy) return state;
  std::set<std::string> domains;
  for (auto const& replica : chunk.replicas) {
    Rows rows(database,
              "SELECT host, location, tier FROM cs LEFT JOIN host ON host.id = cs.host"
              " WHERE cs.id = ?");
    rows.bind(1, replica.cs);
    if (!rows.next()) continue;
    Candidate server;
    server.cs = replica.cs;
    server.host = Host_id{rows.u64(0)};
    server.location = rows.text(1);
    bool const is_alone = domains.insert(domain_key(attributes.domain, server)).second;
    if (!is_alone || rows.u32(2) != attributes.tier) return Chunk_state::misplaced;
  }
  return state;
}

std::optional<Chunk_row> load_chunk(Database& database, Chunk_id id) {
  Rows rows(database, "SELECT file, position, version FROM chunk WHERE id = ?");
  rows.bind(1, id);
  if (!rows.next()) return std::nullopt;
  Chunk_row chunk{id, File_id{rows.u64(0)}, rows.u32(1), Version{rows.u32(2)}, {}};
  load_replicas(database, chunk);
  return chunk;
}

std::optional<Chunk_row> find_chunk(Database& database, File_id file, std::uint32_t position) {
  auto const id =
      database.number("SELECT id FROM chunk WHERE file = ? AND position = ?", 0, file, position);
  return id == 0 ? std::nullopt : load_chunk(database, Chunk_id{id});
}

Chunk_row create_chunk(Context& context, Inode const& inode, std::uint32_t position,
                       std::vector<Cs_id> const& servers) {
  Chunk_row chunk{
      Chunk_id{next_counter(context.database, "chunk")}, inode.id, position, Version{1}, {}};
  for (auto const cs : servers) chunk.replicas.push_back({cs, proto::REPLICA_IN_SYNC});
  std::sort(chunk.replicas.begin(), chunk.replicas.end(),
            [](auto const& a, auto const& b) { return a.cs < b.cs; });
  auto const state = placed_state_of(context.database, chunk, inode.attributes);
  context.database.run(
      "INSERT INTO chunk(id, file, position, version, state) VALUES(?, ?, ?, ?, ?)", chunk.id,
      chunk.file, chunk.position, chunk.version, static_cast<int>(state));
  for (auto const& replica : chunk.replicas) {
    context.database.run("INSERT INTO replica(chunk, cs, state) VALUES(?, ?, ?)", chunk.id,
                         replica.cs, static_cast<int>(replica.state));
  }
  if (state != Chunk_state::healthy) context.effects.replicas_changed = true;
  return chunk;
}

void change_replicas(Context& context, Chunk_row& chunk, std::vector<Replica_row> replicas,
                     Attribute_set const& attributes) {
  auto const old = std::exchange(chunk.replicas, std::move(replicas));
  ++chunk.version.value;
  PS_ASSERT(chunk.version.value != 0);
  for (auto const& replica : chunk.replicas) {
    if (std::find(old.begin(), old.end(), replica) != old.end()) continue;
    context.database.run("INSERT OR REPLACE INTO replica(chunk, cs, state) VALUES(?, ?, ?)",
                         chunk.id, replica.cs, static_cast<int>(replica.state));
  }
  for (auto const& replica : old) {
    auto const* const now = chunk.find(replica.cs);
    if (replica.state == proto::REPLICA_SYNCING &&
        (now == nullptr || now->state == proto::REPLICA_STALE)) {
      context.effects.failed_syncs.insert({chunk.id, replica.cs});
    }
    if (now != nullptr) continue;
    context.database.run("DELETE FROM replica WHERE chunk = ? AND cs = ?", chunk.id, replica.cs);
    add_garbage(context, chunk.id, replica.cs);
  }
  context.database.run("UPDATE chunk SET version = ?, state = ? WHERE id = ?", chunk.version,
                       static_cast<int>(placed_state_of(context.database, chunk, attributes)),
                       chunk.id);
  context.effects.replicas_changed = true;
  for (auto const& replica : chunk.replicas) {
    // The order names the version: every change of it makes the newcomer's sync begin again.
    if (replica.state == proto::REPLICA_SYNCING) {
      context.effects.sync_orders.insert({replica.cs, chunk.id});
    }
  }
  auto const lease = load_lease(context.database, chunk.file);
  // The holder learns of changes it asked for from the reply.
  if (lease && lease->session && lease->session != context.session) {
    context.effects.map_changes.insert({chunk.file, chunk.id});
  }
}

void refresh_state(Database& database, Chunk_row const& chunk, Attribute_set const& attributes) {
  database.run("UPDATE chunk SET state = ? WHERE id = ?",
               static_cast<int>(placed_state_of(database, chunk, attributes)), chunk.id);
}

void refresh_states_on(Context& context, Cs_id cs) {
  std::vector<Chunk_id> chunks;
  {
    Rows rows(context.database, "SELECT chunk FROM replica WHERE cs = ? ORDER BY chunk");
    rows.bind(1, cs);
    while (rows.next()) chunks.push_back(Chunk_id{rows.u64(0)});
  }
  for (auto const id : chunks) {
    auto const chunk = load_chunk(context.database, id);
    auto const inode = chunk ? load_inode(context.database, chunk->file) : std::nullopt;
    if (inode) refresh_state(context.database, *chunk, inode->attributes);
  }
  context.effects.replicas_changed = true;
}

void remove_chunk(Context& context, Chunk_row const& chunk) {
  for (auto const& replica : chunk.replicas) add_garbage(context, chunk.id, replica.cs);
  context.database.run("DELETE FROM replica WHERE chunk = ?", chunk.id);
  context.database.run("DELETE FROM chunk WHERE id = ?", chunk.id);
}

void remove_chunks_from(Context& context, Inode& inode, std::uint64_t position) {
  std::vector<Chunk_id> removed;
  {
    Rows rows(context.database,
              "SELECT id FROM chunk WHERE file = ? AND position >= ? ORDER BY position");
    rows.bind(1, inode.id);
    rows.bind(2, position);
    while (rows.next()) removed.push_back(Chunk_id{rows.u64(0)});
  }
  for (auto const id : removed) {
    if (auto const chunk = load_chunk(context.database, id)) remove_chunk(context, *chunk);
  }
  inode.chunks -= removed.size();
}

void add_to_map(Chunk_row const& chunk, proto::File_map& map) {
  auto& out = *map.add_chunks();
  out.set_index(chunk.position);
  out.set_chunk(chunk.id.value);
  out.set_version(chunk.version.value);
  for (auto const& replica : chunk.replicas) {
    if (replica.state == proto::REPLICA_STALE) continue;
    auto& added = *out.add_replicas();
    added.set_cs(replica.cs.value);
    added.set_state(replica.state);
  }
}

void add_servers(Database& database, proto::File_map& map) {
  std::set<Cs_id> servers;
  for (auto const& chunk : map.chunks()) {
    for (auto const& replica : chunk.replicas()) servers.insert(Cs_id{replica.cs()});
  }
  for (auto const cs : servers) fill_address(database, cs, *map.add_servers());
}

void fill_map(Database& database, File_id file, proto::File_map& map) {
  map.set_file(file.value);
  Rows rows(database,
            "SELECT chunk.id, position, version, cs, replica.state FROM chunk"
            " JOIN replica ON replica.chunk = chunk.id WHERE file = ? ORDER BY position, cs");
  rows.bind(1, file);
  std::optional<Chunk_row> chunk;
  while (rows.next()) {
    if (!chunk || chunk->id.value != rows.u64(0)) {
      if (chunk) add_to_map(*chunk, map);
      chunk = Chunk_row{Chunk_id{rows.u64(0)}, file, rows.u32(1), Version{rows.u32(2)}, {}};
    }
    chunk->replicas.push_back({Cs_id{rows.u32(3)}, static_cast<proto::Replica_state>(rows.u64(4))});
  }
  if (chunk) add_to_map(*chunk, map);
  add_servers(database, map);
}

void fill_address(Database& database, Cs_id cs, proto::Cs_address& out) {
  out.set_cs(cs.value);
  Rows rows(database, "SELECT host, addresses, state FROM cs WHERE id = ?");
  rows.bind(1, cs);
  if (!rows.next()) return;
  out.set_host_id(rows.u64(0));
  for (auto const& address : split_lines(rows.text(1))) out.add_addresses(address);
  out.set_alive(rows.text(2) == "active");
}

}  // namespace pstorage::mds
