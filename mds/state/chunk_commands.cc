#include <algorithm>
#include <map>

#include "core/mutant.h"
#include "mds/state/chunks.h"
#include "mds/state/commands.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

std::string cs_text(Cs_id cs) { return "CS#" + std::to_string(cs.value); }

/// The file of a lease, with its lease checked.
Outcome<Inode> leased_inode(Context& context, std::uint64_t file, std::uint32_t epoch) {
  PS_TRY(auto const lease, held_lease(context, file, epoch));
  auto inode = load_inode(context.database, lease.file);
  if (!inode) return failure(Errc::not_found, "the file has been removed");
  if (!lease.sealed) {
    return failure(Errc::refused, "the take-over of '" + path_of(context.database, lease.file) +
                                      "' is not finished yet");
  }
  return *std::move(inode);
}

/// As leased_inode; or of a session that reads the file under the last writer's epoch.
Outcome<Inode> used_inode(Context& context, std::uint64_t file, std::uint32_t epoch) {
  auto inode = load_inode(context.database, File_id{file});
  if (inode && known_reading_epoch(context.database, inode->id).value == epoch &&
      is_reader(context.database, inode->id, context.session)) {
    return *std::move(inode);
  }
  return leased_inode(context, file, epoch);
}

/// Drops `failed` from the chunk unless that would leave it without an in-sync replica. True when
/// the set has changed.
bool drop_failed(Context& context, Chunk_row& chunk, Attribute_set const& attributes,
                 std::vector<Cs_id> const& failed) {
  auto replicas = chunk.replicas;
  for (auto& replica : replicas) {
    if (std::find(failed.begin(), failed.end(), replica.cs) != failed.end()) {
      replica.state = proto::REPLICA_STALE;
    }
  }
  bool const keeps_one = std::any_of(
      replicas.begin(), replicas.end(),
      [](Replica_row const& replica) { return replica.state == proto::REPLICA_IN_SYNC; });
  if (!keeps_one && !PS_MUTANT(drop_the_last_replica)) {
    // Which of them is the better one nobody can know: all in-sync ones stay.
    for (std::size_t i = 0; i < replicas.size(); ++i) {
      if (chunk.replicas[i].state == proto::REPLICA_IN_SYNC) replicas[i] = chunk.replicas[i];
    }
  }
  if (replicas == chunk.replicas) return false;
  change_replicas(context, chunk, std::move(replicas), attributes);
  return true;
}

/// Slow servers are dropped only as far as the minimum stays without them.
void spare_slow(Chunk_row const& chunk, Attribute_set const& attributes,
                proto::Report_failed const& command, std::vector<Cs_id>& failed) {
  auto const left = [&] {
    return static_cast<std::size_t>(std::count_if(
        chunk.replicas.begin(), chunk.replicas.end(), [&](Replica_row const& replica) {
          return replica.state == proto::REPLICA_IN_SYNC &&
                 std::find(failed.begin(), failed.end(), replica.cs) == failed.end();
        }));
  };
  for (auto const cs : command.slow()) {
    if (left() >= attributes.min || PS_MUTANT(drop_slow_below_min)) return;
    std::erase(failed, Cs_id{cs});
  }
}

std::string failed_text(std::set<Cs_id> const& failed) {
  std::string text;
  for (auto const cs : failed) text += (text.empty() ? "" : ", ") + cs_text(cs);
  return text;
}

}  // namespace

Applied apply_allocate(Context& context, proto::Allocate const& command, proto::Mds_reply& reply) {
  if (command.indexes_size() > allocate_indexes_max) {
    return failure(Errc::too_large,
                   "at most " + std::to_string(allocate_indexes_max) + " chunks at once");
  }
  PS_TRY(auto inode, leased_inode(context, command.file(), command.epoch()));
  auto candidates = load_candidates(context.database, context.space);
  auto const rules = placement_rules(context.database);
  auto& map = *reply.mutable_map();
  map.set_file(inode.id.value);
  for (auto const index : command.indexes()) {
    auto const positions_max = file_bytes_max / inode.attributes.chunk_size;
    if (index >= (command.beyond_end() ? positions_max : inode.positions())) {
      return failure(Errc::bad_request,
                     "chunk " + std::to_string(index) + " is behind the end of the file");
    }
    if (auto const present = find_chunk(context.database, inode.id, index)) {
      add_to_map(*present, map);
      continue;
    }
    auto const& attributes = inode.attributes;
    PS_TRY(auto const servers, place({attributes.norm,
                                      attributes.min,
                                      attributes.domain,
                                      attributes.tier,
                                      attributes.chunk_size,
                                      {},
                                      {}},
                                     candidates, rules, context.random));
    for (auto& candidate : candidates) {
      if (std::find(servers.begin(), servers.end(), candidate.cs) != servers.end()) {
        candidate.free_bytes -=
            std::min<std::uint64_t>(candidate.free_bytes, attributes.chunk_size);
      }
    }
    add_to_map(create_chunk(context, inode, index, servers), map);
    ++inode.chunks;
  }
  store_inode(context.database, inode);
  add_servers(context.database, map);
  return success();
}

Applied apply_report_failed(Context& context, proto::Report_failed const& command,
                            proto::Mds_reply& reply) {
  PS_TRY(auto const inode, used_inode(context, command.file(), command.epoch()));
  auto& map = *reply.mutable_map();
  map.set_file(inode.id.value);
  std::uint64_t changed = 0;
  std::set<Cs_id> dropped;
  for (auto const& one : command.chunks()) {
    auto chunk = load_chunk(context.database, Chunk_id{one.chunk()});
    if (!chunk || chunk->file != inode.id) {
      return failure(Errc::not_found,
                     "chunk " + std::to_string(one.chunk()) + " does not belong to the file");
    }
    std::vector<Cs_id> failed;
    for (auto const cs : one.failed()) failed.push_back(Cs_id{cs});
    spare_slow(*chunk, inode.attributes, command, failed);
    // Another version: the asker did not know the present set; it gets it and may ask again.
    if (chunk->version.value == one.version() &&
        drop_failed(context, *chunk, inode.attributes, failed)) {
      ++changed;
      dropped.insert(failed.begin(), failed.end());
    }
    add_to_map(*chunk, map);
  }
  add_servers(context.database, map);
  for (auto const cs : command.slow()) {
    if (dropped.contains(Cs_id{cs})) context.effects.slow.insert(Cs_id{cs});
  }
  if (changed != 0) {
    add_event(context, "MDS", "WRN",
              std::to_string(changed) + (changed == 1 ? " chunk" : " chunks") + " of '" +
                  path_of(context.database, inode.id) + "' without " + failed_text(dropped) +
                  (command.reason().empty() ? "" : ": " + command.reason().substr(0, 200)));
  }
  return success();
}

Applied apply_free_chunks(Context& context, proto::Free_chunks const& command) {
  PS_TRY(auto inode, leased_inode(context, command.file(), command.epoch()));
  for (auto const index : command.indexes()) {
    auto const chunk = find_chunk(context.database, inode.id, index);
    if (!chunk) continue;
    remove_chunk(context, *chunk);
    --inode.chunks;
  }
  store_inode(context.database, inode);
  return success();
}

Applied apply_start_sync(Context& context, proto::Start_sync const& command) {
  for (auto const& one : command.chunks()) {
    auto chunk = load_chunk(context.database, Chunk_id{one.chunk()});
    if (!chunk || chunk->version.value != one.version()) continue;  // overtaken by a change
    Cs_id const cs{one.cs()};
    auto const inode = load_inode(context.database, chunk->file);
    Rows server(context.database,
                "SELECT 1 FROM cs WHERE id = ? AND state = 'active'"
                " AND id NOT IN (SELECT cs FROM release)");
    server.bind(1, cs);
    Rows garbage(context.database, "SELECT 1 FROM garbage WHERE chunk = ? AND cs = ?");
    garbage.bind(1, chunk->id);
    garbage.bind(2, cs);
    // A pending deletion of the same chunk would race with the new replica.
    if (!inode || !server.next() || garbage.next()) continue;
    auto replicas = chunk->replicas;
    auto const found = std::find_if(replicas.begin(), replicas.end(),
                                    [cs](Replica_row const& replica) { return replica.cs == cs; });
    if (found == replicas.end()) {
      replicas.push_back({cs, proto::REPLICA_SYNCING});
      std::sort(replicas.begin(), replicas.end(),
                [](auto const& a, auto const& b) { return a.cs < b.cs; });
    } else if (found->state == proto::REPLICA_STALE) {
      found->state = proto::REPLICA_SYNCING;
    } else {
      continue;
    }
    change_replicas(context, *chunk, std::move(replicas), inode->attributes);
  }
  return success();
}

Applied apply_drop_offline(Context& context, proto::Start_sync const& command) {
  std::map<std::uint32_t, std::uint64_t> dropped;
  for (auto const& one : command.chunks()) {
    auto chunk = load_chunk(context.database, Chunk_id{one.chunk()});
    if (!chunk || chunk->version.value != one.version()) continue;  // overtaken by a change
    auto const inode = load_inode(context.database, chunk->file);
    Rows server(context.database, "SELECT 1 FROM cs WHERE id = ? AND state = 'offline'");
    server.bind(1, one.cs());
    if (!inode || !server.next()) continue;
    if (drop_failed(context, *chunk, inode->attributes, {Cs_id{one.cs()}})) ++dropped[one.cs()];
  }
  for (auto const& [cs, count] : dropped) {
    add_event(context, "MDS", "WRN",
              "CS#" + std::to_string(cs) + " is offline: " + std::to_string(count) +
                  " chunks go on without it");
  }
  return success();
}

Applied apply_sync_done(Context& context, proto::Sync_done const& command) {
  auto chunk = load_chunk(context.database, Chunk_id{command.chunk()});
  Cs_id const cs{command.cs()};
  auto* const replica = chunk ? chunk->find(cs) : nullptr;
  auto const inode = chunk ? load_inode(context.database, chunk->file) : std::nullopt;
  if (replica == nullptr || !inode) {
    return failure(Errc::not_found,
                   cs_text(cs) + " holds no replica of chunk " + std::to_string(command.chunk()));
  }
  if (replica->state != proto::REPLICA_SYNCING || chunk->version.value != command.version()) {
    return failure(Errc::stale_version, "chunk " + std::to_string(command.chunk()) +
                                            " has version " + std::to_string(chunk->version.value) +
                                            " now");
  }
  auto replicas = chunk->replicas;
  auto const index = static_cast<std::size_t>(replica - chunk->replicas.data());
  if (command.failed()) {
    replicas[index].state = proto::REPLICA_STALE;
    change_replicas(context, *chunk, std::move(replicas), inode->attributes);
    add_event(context, "CS", "WRN",
              cs_text(cs) + " gave up the replication of chunk " + std::to_string(chunk->id.value) +
                  ": " + command.reason().substr(0, 200));
    return success();
  }
  auto const lease = load_lease(context.database, chunk->file);
  // While anybody may be writing, only a newcomer that this writer has joined has every write.
  if (lease && lease->epoch.value != command.epoch()) {
    return failure(Errc::stale_epoch,
                   "the writer of the file has not joined this replica: wait "
                   "for the next order");
  }
  replicas[index].state = proto::REPLICA_IN_SYNC;
  auto const in_sync = static_cast<std::size_t>(
      std::count_if(replicas.begin(), replicas.end(),
                    [](Replica_row const& row) { return row.state == proto::REPLICA_IN_SYNC; }));
  if (in_sync >= inode->attributes.norm) {
    std::erase_if(replicas,
                  [](Replica_row const& row) { return row.state == proto::REPLICA_STALE; });
  }
  change_replicas(context, *chunk, std::move(replicas), inode->attributes);
  ++context.effects.syncs_done;
  return success();
}

Applied apply_deleted_chunks(Context& context, proto::Deleted_chunks const& command) {
  for (auto const chunk : command.chunks()) {
    context.database.run("DELETE FROM garbage WHERE chunk = ? AND cs = ?", chunk, command.cs());
  }
  if (!command.chunks().empty()) context.effects.garbage.insert(Cs_id{command.cs()});
  return success();
}

}  // namespace pstorage::mds
