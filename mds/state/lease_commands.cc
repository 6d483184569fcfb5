#include <algorithm>

#include "mds/state/chunks.h"
#include "mds/state/commands.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

std::vector<Chunk_id> chunks_of(Database& database, File_id file) {
  std::vector<Chunk_id> chunks;
  Rows rows(database, "SELECT id FROM chunk WHERE file = ? ORDER BY position");
  rows.bind(1, file);
  while (rows.next()) chunks.push_back(Chunk_id{rows.u64(0)});
  return chunks;
}

/// Drops the unreachable replicas of one chunk as far as a sealed in-sync one remains. False: an
/// in-sync replica stays that the new epoch has not reached.
bool drop_unreachable(Context& context, Chunk_row& chunk, Attribute_set const& attributes,
                      std::vector<Cs_id> const& unreachable, bool& changed) {
  auto const is_unreachable = [&](Replica_row const& replica) {
    return std::find(unreachable.begin(), unreachable.end(), replica.cs) != unreachable.end();
  };
  bool const keeps_one =
      std::any_of(chunk.replicas.begin(), chunk.replicas.end(), [&](Replica_row const& replica) {
        return replica.state == proto::REPLICA_IN_SYNC && !is_unreachable(replica);
      });
  auto replicas = chunk.replicas;
  for (auto& replica : replicas) {
    if (!is_unreachable(replica)) continue;
    // The last up-to-date replicas are never dropped to make progress: the chunk waits for them.
    if (replica.state == proto::REPLICA_IN_SYNC && !keeps_one) continue;
    replica.state = proto::REPLICA_STALE;
  }
  changed = replicas != chunk.replicas;
  if (changed) change_replicas(context, chunk, std::move(replicas), attributes);
  return keeps_one;
}

}  // namespace

Applied apply_open_file(Context& context, proto::Open_file const& command,
                        proto::Mds_reply& reply) {
  auto& database = context.database;
  PS_TRY(auto const inode, resolve_file(database, command.path()));
  auto const old = load_lease(database, inode.id);
  std::string previous;
  if (old && old->session && old->session != context.session) {
    previous = describe_session(database, old->session);
    if (!command.force()) {
      return failure(Errc::busy, "'" + command.path() + "' is in use by " + previous +
                                     ": stop it there, or take it over with 'pstorage revoke " +
                                     command.path() + "'");
    }
    context.effects.lost_leases.push_back(
        {old->session, inode.id, old->epoch, describe_session(database, context.session)});
    note_revocation(database, inode.id, old->session);
  }
  Lease_row lease;
  lease.file = inode.id;
  lease.session = context.session;
  lease.epoch = Epoch{static_cast<std::uint32_t>(next_counter(database, "epoch"))};
  lease.fenced = !old;
  store_lease(context, lease);
  if (!previous.empty()) {
    add_event(context, "MDS", "WRN",
              "Lease of '" + command.path() + "' taken over from " + previous + " by " +
                  describe_session(database, context.session));
  }
  auto& granted = *reply.mutable_lease();
  fill_file(database, inode, {}, *granted.mutable_file());
  granted.set_epoch(lease.epoch.value);
  granted.set_previous_holder(previous);
  if (auto const former = revoked_session(database, inode.id); former != context.session) {
    granted.set_previous_session(former.value);
  }
  fill_map(database, inode.id, *granted.mutable_map());
  return success();
}

Applied apply_finish_seal(Context& context, proto::Finish_seal const& command,
                          proto::Mds_reply& reply) {
  PS_TRY(auto lease, held_lease(context, command.file(), command.epoch()));
  auto const inode = load_inode(context.database, lease.file);
  if (!inode) return failure(Errc::not_found, "the file has been removed");
  auto& map = *reply.mutable_map();
  map.set_file(lease.file.value);
  bool complete = true;
  std::vector<Cs_id> unreachable;
  for (auto const cs : command.unreachable()) unreachable.push_back(Cs_id{cs});
  std::uint64_t dropped = 0;
  if (!unreachable.empty()) {
    for (auto const id : chunks_of(context.database, lease.file)) {
      auto chunk = load_chunk(context.database, id);
      if (!chunk) continue;
      bool changed = false;
      if (!drop_unreachable(context, *chunk, inode->attributes, unreachable, changed)) {
        complete = false;
      }
      if (changed) {
        ++dropped;
        add_to_map(*chunk, map);
      }
    }
  }
  add_servers(context.database, map);
  if (dropped != 0) {
    add_event(context, "MDS", "WRN",
              "Take-over of '" + path_of(context.database, lease.file) + "': " +
                  std::to_string(dropped) + " chunks go on without unreachable chunk servers");
  }
  end_revocation(context.database, lease.file);
  lease.sealed = true;
  lease.fenced = lease.fenced || complete;
  store_lease(context, lease);
  return success();
}

Applied apply_close_file(Context& context, proto::Close_file const& command) {
  PS_TRY(auto const lease, held_lease(context, command.file(), command.epoch()));
  // An unsealed holder has written nothing itself: whether earlier ones may is in `fenced`.
  end_lease(context, lease, true);
  return success();
}

Applied apply_revoke(Context& context, proto::Revoke const& command) {
  PS_TRY(auto const inode, resolve_file(context.database, command.path()));
  auto lease = load_lease(context.database, inode.id);
  if (!lease || !lease->session) {
    return failure(Errc::not_found, "'" + command.path() + "' is not in use by anybody");
  }
  auto const holder = describe_session(context.database, lease->session);
  auto const asker = describe_session(context.database, context.session);
  context.effects.lost_leases.push_back({lease->session, inode.id, lease->epoch, asker});
  note_revocation(context.database, inode.id, lease->session);
  // A new epoch, so that what the old holder still asks of us is stale.
  lease->epoch = Epoch{static_cast<std::uint32_t>(next_counter(context.database, "epoch"))};
  lease->sealed = false;
  end_lease(context, *lease, false);
  add_event(context, "MDS", "WRN",
            "Lease of '" + command.path() + "' revoked from " + holder + " by " + asker);
  return success();
}

}  // namespace pstorage::mds
