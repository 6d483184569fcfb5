// What the MDS tells others unasked, after the change is committed and stored.
#include "mds/server/metadata_server.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

constexpr int delete_batch_max = 1000;

void fill_order(Database& database, Chunk_row const& chunk, Inode const& inode,
                proto::Sync_orders::One& order) {
  order.set_chunk(chunk.id.value);
  order.set_file(chunk.file.value);
  order.set_version(chunk.version.value);
  order.set_chunk_size(inode.attributes.chunk_size);
  order.set_writer_expected(load_lease(database, chunk.file).has_value());
  for (auto const& replica : chunk.replicas) {
    if (replica.state == proto::REPLICA_IN_SYNC) {
      fill_address(database, replica.cs, *order.add_sources());
    }
  }
}

}  // namespace

void Metadata_server::carry_out(Effects& effects) {
  auto& database = state_->database();
  auto const now = clock_.now();
  for (auto const session : effects.sessions) tables_.refresh_session(database, session, now);
  for (auto const file : effects.leases) tables_.refresh_lease(database, file);
  for (auto const cs : effects.servers) tables_.refresh_server(database, cs, now);
  for (auto const& lost : effects.lost_leases) {
    auto const session = tables_.sessions.find(lost.session);
    if (session == tables_.sessions.end() || !session->second.connection) continue;
    proto::Mds_push push;
    push.mutable_lease_lost()->set_file(lost.file.value);
    push.mutable_lease_lost()->set_epoch(lost.epoch.value);
    push.mutable_lease_lost()->set_taken_by(lost.taken_by);
    send(session->second.connection, 0, push);
  }
  push_maps(effects.map_changes);
  push_sync_orders(effects.sync_orders);
  for (auto const file : effects.leases) push_orders_of_file(file);
  for (auto const cs : effects.garbage) {
    auto const server = tables_.servers.find(cs);
    if (server == tables_.servers.end()) continue;
    server->second.is_deleting = false;
    push_garbage(cs);
  }
  for (auto const cs : effects.slow) tables_.slow.reported(cs, now);
  for (auto const& [chunk, cs] : effects.failed_syncs) tables_.note_failed_sync(chunk, cs, now);
  if (effects.config_changed) tables_.load_settings(database);
  push_minimums(effects.minimums);
  dismiss_dropped(effects.servers);
  healing_.syncs_done += effects.syncs_done;
  if (effects.replicas_changed) planner_due_ = true;
  if (effects.members_changed) {
    learn_members();
    arrange_members();
  }
}

void Metadata_server::push_lease_wanted(Session_id holder, proto::Lease_wanted const& wanted) {
  auto const session = tables_.sessions.find(holder);
  if (session == tables_.sessions.end() || !session->second.connection) return;
  proto::Mds_push push;
  *push.mutable_lease_wanted() = wanted;
  send(session->second.connection, 0, push);
}

void Metadata_server::push_maps(std::set<std::pair<File_id, Chunk_id>> const& changes) {
  auto& database = state_->database();
  for (auto at = changes.begin(); at != changes.end();) {
    auto const file = at->first;
    proto::Mds_push push;
    auto& map = *push.mutable_map_changed();
    map.set_file(file.value);
    for (; at != changes.end() && at->first == file; ++at) {
      if (auto const chunk = load_chunk(database, at->second)) add_to_map(*chunk, map);
    }
    auto const connection = tables_.holder_connection(file);
    if (!connection || map.chunks().empty()) continue;
    add_servers(database, map);
    send(connection, 0, push);
  }
}

void Metadata_server::push_whole_maps(Session_id session, Connection_id connection) {
  for (auto const& [file, lease] : tables_.leases) {
    if (lease.session != session) continue;
    proto::Mds_push push;
    fill_map(state_->database(), file, *push.mutable_map_changed());
    auto const inode = load_inode(state_->database(), file);
    if (inode) push.mutable_map_changed()->set_replicas_min(inode->attributes.min);
    send(connection, 0, push);
  }
}

void Metadata_server::push_sync_orders(std::set<std::pair<Cs_id, Chunk_id>> const& orders) {
  auto& database = state_->database();
  for (auto at = orders.begin(); at != orders.end();) {
    auto const cs = at->first;
    proto::Mds_push push;
    for (; at != orders.end() && at->first == cs; ++at) {
      auto chunk = load_chunk(database, at->second);
      auto const* const replica = chunk ? chunk->find(cs) : nullptr;
      auto const inode = chunk ? load_inode(database, chunk->file) : std::nullopt;
      if (replica == nullptr || replica->state != proto::REPLICA_SYNCING || !inode) continue;
      fill_order(database, *chunk, *inode, *push.mutable_sync_orders()->add_orders());
    }
    auto const server = tables_.servers.find(cs);
    if (server == tables_.servers.end() || !server->second.connection) continue;
    if (!push.sync_orders().orders().empty()) send(server->second.connection, 0, push);
  }
}

void Metadata_server::push_all_orders(Cs_id cs) {
  std::set<std::pair<Cs_id, Chunk_id>> orders;
  {
    Rows rows(state_->database(), "SELECT chunk FROM replica WHERE cs = ? AND state = 1");
    rows.bind(1, cs);
    while (rows.next()) orders.insert({cs, Chunk_id{rows.u64(0)}});
  }
  push_sync_orders(orders);
}

void Metadata_server::push_orders_of_file(File_id file) {
  // Whether a writer is to be expected has changed; the orders say it.
  std::set<std::pair<Cs_id, Chunk_id>> orders;
  {
    Rows rows(state_->database(),
              "SELECT cs, chunk.id FROM chunk JOIN replica ON replica.chunk = chunk.id"
              " WHERE file = ? AND chunk.state <> 0 AND replica.state = 1");
    rows.bind(1, file);
    while (rows.next()) orders.insert({Cs_id{rows.u32(0)}, Chunk_id{rows.u64(1)}});
  }
  push_sync_orders(orders);
}

void Metadata_server::push_garbage(Cs_id cs) {
  auto const server = tables_.servers.find(cs);
  if (server == tables_.servers.end() || !server->second.connection || server->second.is_deleting) {
    return;
  }
  proto::Mds_push push;
  auto& deletion = *push.mutable_delete_chunks();
  {
    Rows rows(state_->database(), "SELECT chunk FROM garbage WHERE cs = ? ORDER BY chunk LIMIT ?");
    rows.bind(1, cs);
    rows.bind(2, delete_batch_max);
    while (rows.next()) deletion.add_chunks(rows.u64(0));
  }
  if (deletion.chunks().empty()) return;
  server->second.is_deleting = true;
  server->second.last_pushed = clock_.now();
  send(server->second.connection, 0, push);
}

}  // namespace pstorage::mds
