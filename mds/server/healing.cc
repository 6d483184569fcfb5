// The leader's rounds through what is not as it should be: repairs, servers on their way out,
// surplus replicas, balance. Decides nothing itself: mds/planner does, the state machine checks.
#include "mds/server/healing.h"

#include <algorithm>

#include "mds/server/metadata_server.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

constexpr int batch_max = 64;          // chunks of a kind in one pass
constexpr int balance_batch_max = 32;  // of one server
constexpr int give_up_batch_max = 256;
constexpr Duration balance_interval = std::chrono::milliseconds(200);
// Free space shows a finished move after the next heartbeats and the deletion of the old replica.
constexpr Duration move_settles = std::chrono::milliseconds(2500);
constexpr double smoothing = 0.15;

proto::Mds_request start_request(std::vector<Sync_choice> const& choices) {
  proto::Mds_request request;
  for (auto const& choice : choices) {
    auto& one = *request.mutable_start_sync()->add_chunks();
    one.set_chunk(choice.chunk.value);
    one.set_version(choice.version.value);
    one.set_cs(choice.cs.value);
  }
  return request;
}

bool is_leaving(Candidate const& candidate) {
  return candidate.releasing || candidate.state == "failed";
}

}  // namespace

void Healing::sample(Time_point now) {
  if (now - last_sample < std::chrono::seconds(1)) return;
  auto const seconds = std::chrono::duration<double>(now - last_sample).count();
  auto const rate = static_cast<double>(syncs_done - syncs_sampled) / seconds;
  syncs_a_second += smoothing * (rate - syncs_a_second);
  syncs_sampled = syncs_done;
  last_sample = now;
}

std::vector<Move> Healing::pending_moves() const {
  std::vector<Move> pending;
  for (auto const& one : moves) pending.push_back(one.move);
  return pending;
}

std::optional<Needy_chunk> Metadata_server::load_needy(Chunk_id id, Need need, Time_point now) {
  auto& database = state_->database();
  auto const chunk = load_chunk(database, id);
  auto const inode = chunk ? load_inode(database, chunk->file) : std::nullopt;
  if (!inode) return std::nullopt;
  auto const lease = tables_.leases.find(chunk->file);
  bool const is_leased = lease != tables_.leases.end();
  // The last writer vanished and may still be writing: only the next one can fence it, and only
  // then may a replica be declared complete.
  if (is_leased && !lease->second.session) return std::nullopt;
  if (need == Need::blocked && is_leased) need = Need::pending;
  auto const& attributes = inode->attributes;
  Needy_chunk one{id,
                  chunk->version,
                  attributes.norm,
                  attributes.domain,
                  attributes.tier,
                  attributes.chunk_size,
                  {},
                  {},
                  {},
                  {},
                  tables_.resting(id, now),
                  need};
  for (auto const& replica : chunk->replicas) {
    auto& list = replica.state == proto::REPLICA_IN_SYNC   ? one.in_sync
                 : replica.state == proto::REPLICA_SYNCING ? one.syncing
                                                           : one.stale;
    list.push_back(replica.cs);
  }
  Rows garbage(database, "SELECT cs FROM garbage WHERE chunk = ? ORDER BY cs");
  garbage.bind(1, id);
  while (garbage.next()) one.garbage.push_back(Cs_id{garbage.u32(0)});
  return one;
}

/// The chunks that `rows` names, at most `batch`. The cursor goes round, so that chunks that cannot
/// be helped now do not keep the others waiting.
std::vector<Needy_chunk> Metadata_server::load_batch(Rows& rows, std::size_t batch,
                                                     std::uint64_t& cursor, Need need,
                                                     Time_point now) {
  std::vector<Chunk_id> ids;
  while (rows.next()) ids.push_back(Chunk_id{rows.u64(0)});
  cursor = ids.size() < batch ? 0 : ids.back().value;
  std::vector<Needy_chunk> found;
  for (auto const id : ids) {
    if (auto one = load_needy(id, need, now)) found.push_back(*std::move(one));
  }
  return found;
}

/// The next batch of chunks in `state`. A cursor a state: less needy ones do not delay the needier.
std::vector<Needy_chunk> Metadata_server::next_in_state(Chunk_state state, Need need,
                                                        Time_point now) {
  auto& cursor = healing_.state_cursor[static_cast<int>(state)];
  Rows rows(state_->database(),
            "SELECT id FROM chunk WHERE state <> 0 AND state = ? AND id > ? ORDER BY id LIMIT ?");
  rows.bind(1, static_cast<int>(state));
  rows.bind(2, cursor);
  rows.bind(3, batch_max);
  return load_batch(rows, batch_max, cursor, need, now);
}

std::vector<Needy_chunk> Metadata_server::next_on_server(Cs_id cs, Time_point now) {
  auto& cursor = healing_.server_cursor[cs];
  Rows rows(state_->database(),
            "SELECT chunk FROM replica WHERE cs = ? AND state = 0 AND chunk > ?"
            " ORDER BY chunk LIMIT ?");
  rows.bind(1, cs);
  rows.bind(2, cursor);
  rows.bind(3, balance_batch_max);
  return load_batch(rows, balance_batch_max, cursor, Need::leaving, now);
}

std::vector<Needy_chunk> Metadata_server::next_leaving(std::vector<Candidate> const& candidates,
                                                       Time_point now) {
  std::vector<Needy_chunk> leaving;
  for (auto const& candidate : candidates) {
    if (!is_leaving(candidate)) continue;
    auto batch = next_on_server(candidate.cs, now);
    leaving.insert(leaving.end(), std::make_move_iterator(batch.begin()),
                   std::make_move_iterator(batch.end()));
  }
  return leaving;
}

void Metadata_server::remove_replicas(std::vector<Needy_chunk> const& leaving,
                                      Servers const& servers, Time_point now) {
  auto surplus = next_in_state(Chunk_state::overcommitted, Need::misplaced, now);
  surplus.insert(surplus.end(), leaving.begin(), leaving.end());
  proto::Mds_request request;
  for (auto const& removal : plan_removals(surplus, servers)) {
    auto& one = *request.mutable_remove_replicas()->add_chunks();
    one.set_chunk(removal.chunk.value);
    one.set_version(removal.version.value);
    for (auto const cs : removal.servers) one.add_servers(cs.value);
  }
  if (request.has_remove_replicas()) propose_own(std::move(request));
}

void Metadata_server::give_up_replicas(Cs_id cs, proto::Remove_replicas& command) {
  auto& cursor = healing_.server_cursor[cs];
  int found = 0;
  Rows rows(state_->database(),
            "SELECT chunk, version FROM replica JOIN chunk ON chunk.id = replica.chunk"
            " WHERE cs = ? AND chunk > ? ORDER BY chunk LIMIT ?");
  rows.bind(1, cs);
  rows.bind(2, cursor);
  rows.bind(3, give_up_batch_max);
  while (rows.next()) {
    ++found;
    cursor = rows.u64(0);
    auto& one = *command.add_chunks();
    one.set_chunk(rows.u64(0));
    one.set_version(rows.u32(1));
    one.add_servers(cs.value);
  }
  if (found < give_up_batch_max) cursor = 0;
}

/// Servers that have given everything away are dropped; those that were given up by force lose what
/// exists elsewhere, too.
void Metadata_server::finish_releases(std::vector<Candidate> const& candidates) {
  auto& database = state_->database();
  for (auto const& candidate : candidates) {
    if (!candidate.releasing) continue;
    proto::Mds_request request;
    if (database.number("SELECT forced FROM release WHERE cs = ?", 0, candidate.cs) != 0) {
      give_up_replicas(candidate.cs, *request.mutable_remove_replicas());
      if (!request.remove_replicas().chunks().empty()) propose_own(std::move(request));
      request.Clear();
    } else if (database.number("SELECT 1 FROM replica WHERE cs = ? LIMIT 1", 0, candidate.cs)) {
      continue;
    }
    request.mutable_drop_cs()->set_cs(candidate.cs.value);
    propose_own(std::move(request));
  }
}

void Metadata_server::balance(Servers const& servers, Sync_slots& slots,
                              Placement_rules const& rules, Time_point now) {
  if (now - healing_.last_balance < balance_interval) return;
  healing_.last_balance = now;
  auto& database = state_->database();
  for (auto& one : healing_.moves) {
    bool const is_under_way =
        database.number("SELECT state = 1 FROM replica WHERE chunk = ? AND cs = ?", 0,
                        one.move.chunk, one.move.to) != 0;
    if (is_under_way) one.seen = now;
  }
  std::erase_if(healing_.moves, [now](auto const& one) { return now - one.seen > move_settles; });
  std::map<Cs_id, Server_load> loads;
  for (auto const& [cs, memory] : tables_.servers) {
    loads[cs] = {memory.stats.replicas(), memory.stats.io_latency_us()};
  }
  auto moves = healing_.pending_moves();
  auto const known = moves.size();
  auto const chunks_on = [this, now](Cs_id cs) { return next_on_server(cs, now); };
  for (std::uint32_t tier = 0; tier <= tier_max; ++tier) {
    plan_balance(tier, servers, loads, chunks_on, slots, rules, moves);
  }
  for (auto i = known; i < moves.size(); ++i) healing_.moves.push_back({moves[i], now});
}

void Metadata_server::heal(Time_point now, std::vector<Candidate> const& candidates) {
  healing_.sample(now);
  auto& database = state_->database();
  auto const rules = placement_rules(database);
  Servers const servers(candidates);
  auto limits = options_.recovery;
  limits.syncs_total = std::max(limits.syncs_total, static_cast<std::uint32_t>(candidates.size()));
  Sync_slots slots(syncs_under_way(), limits);
  auto const leaving = next_leaving(candidates, now);
  remove_replicas(leaving, servers, now);
  finish_releases(candidates);
  if (slots.is_full()) return;
  std::vector<Needy_chunk> needy;
  auto const add = [&needy](std::vector<Needy_chunk> const& more) {
    needy.insert(needy.end(), more.begin(), more.end());
  };
  add(next_in_state(Chunk_state::blocked, Need::blocked, now));
  add(next_in_state(Chunk_state::urgent, Need::urgent, now));
  add(next_in_state(Chunk_state::degraded, Need::degraded, now));
  bool const has_needy = !needy.empty();
  auto const misplaced = next_in_state(Chunk_state::misplaced, Need::misplaced, now);
  add(leaving);
  add(misplaced);
  plan_recovery(std::move(needy), servers, slots, rules,
                setting_number(database, "mds.wd.max_offline_cs_hosts"), random_);
  plan_tiers(misplaced, servers, slots, rules, random_);
  if (!has_needy) balance(servers, slots, rules, now);
  auto const choices = slots.take_choices();
  if (!choices.empty()) propose_own(start_request(choices));
}

void Metadata_server::fill_repair(proto::Status_reply& status) {
  auto& database = state_->database();
  auto left =
      database.number("SELECT count(*) FROM chunk WHERE state <> 0 AND state IN (1, 2, 3, 4)", 0);
  left += database.number(
      "SELECT count(*) FROM replica WHERE state = 0 AND cs IN (SELECT cs FROM release"
      " WHERE forced = 0)",
      0);
  std::uint64_t used = 0;
  std::uint64_t replicas = 0;
  for (auto const& [cs, memory] : tables_.servers) {
    auto const& stats = memory.stats;
    used += stats.total_bytes() - std::min(stats.free_bytes(), stats.total_bytes());
    replicas += stats.replicas();
    status.set_scrubbed_bytes(status.scrubbed_bytes() + stats.scrubbed_bytes());
    status.set_scrub_errors(status.scrub_errors() + stats.scrub_errors());
    status.set_scrub_repaired(status.scrub_repaired() + stats.scrub_repaired());
  }
  // On a disk that holds other things, too, the average says nothing: no replica is larger than a
  // chunk.
  auto const root = load_inode(database, root_inode);
  auto const bytes_max = static_cast<double>(root ? root->attributes.chunk_size : 0);
  auto const bytes_a_replica =
      std::min(bytes_max, static_cast<double>(used) /
                              static_cast<double>(std::max<std::uint64_t>(replicas, 1)));
  auto const rate = healing_.syncs_a_second;
  status.set_repair_replicas(left);
  status.set_repair_bytes(static_cast<std::uint64_t>(static_cast<double>(left) * bytes_a_replica));
  status.set_repair_bytes_per_s(static_cast<std::uint64_t>(rate * bytes_a_replica));
  if (left != 0 && rate > 0.01) {
    status.set_repair_eta_s(static_cast<std::uint64_t>(static_cast<double>(left) / rate) + 1);
  }
}

/// A CS has told what is on its disk. What the map does not have there is deleted, by a command:
/// a replica that is just being added is safe from this.
Outcome<void> Metadata_server::take_inventory(Connection_id connection,
                                              proto::Inventory const& inventory) {
  auto const peer = peers_.find(connection);
  if (peer == peers_.end() || peer->second.cs.value != inventory.cs()) {
    return failure(Errc::refused, "this chunk server has not registered: register first");
  }
  auto& database = state_->database();
  proto::Mds_request request;
  for (auto const chunk : inventory.chunks()) {
    Cs_id const cs{inventory.cs()};
    bool const is_known =
        database.number("SELECT 1 FROM replica WHERE chunk = ? AND cs = ?", 0, chunk, cs) != 0 ||
        database.number("SELECT 1 FROM garbage WHERE chunk = ? AND cs = ?", 0, chunk, cs) != 0;
    if (!is_known) request.mutable_add_garbage()->add_chunks(chunk);
  }
  if (!request.has_add_garbage()) return success();
  log_.info("a chunk server has chunks that nobody knows: they are deleted",
            {{"cs", inventory.cs()}, {"chunks", request.add_garbage().chunks_size()}});
  request.mutable_add_garbage()->set_cs(inventory.cs());
  propose_own(std::move(request));
  return success();
}

Outcome<void> Metadata_server::note_damage(Connection_id connection,
                                           proto::Report_damage const& damage,
                                           proto::Mds_reply& reply) {
  auto const peer = peers_.find(connection);
  if (peer == peers_.end() || peer->second.cs.value != damage.cs()) {
    return failure(Errc::refused, "this chunk server has not registered: register first");
  }
  auto& database = state_->database();
  auto const chunk = load_chunk(database, Chunk_id{damage.chunk()});
  if (!chunk) return failure(Errc::not_found, "the chunk has been removed");
  auto& map = *reply.mutable_map();
  map.set_file(chunk->file.value);
  add_to_map(*chunk, map);
  add_servers(database, map);
  proto::Mds_request request;
  auto& event = *request.mutable_add_event();
  event.set_source("CS");
  event.set_severity("WRN");
  event.set_text("CS#" + std::to_string(damage.cs()) + " found " + std::to_string(damage.blocks()) +
                 " damaged blocks in chunk " + std::to_string(damage.chunk()) +
                 ": they are replaced from another replica");
  propose_own(std::move(request));
  return success();
}

void Metadata_server::push_minimums(std::set<File_id> const& files) {
  for (auto const file : files) {
    auto const connection = tables_.holder_connection(file);
    auto const inode = load_inode(state_->database(), file);
    if (!connection || !inode) continue;
    proto::Mds_push push;
    push.mutable_map_changed()->set_file(file.value);
    push.mutable_map_changed()->set_replicas_min(inode->attributes.min);
    push.mutable_map_changed()->set_on_full(to_proto(inode->attributes).on_full());
    send(connection, 0, push);
  }
}

/// A dropped server that is still connected hears of it when it registers again.
void Metadata_server::dismiss_dropped(std::set<Cs_id> const& changed) {
  for (auto const cs : changed) {
    auto const found = tables_.servers.find(cs);
    if (found == tables_.servers.end() || found->second.state != "dropped") continue;
    auto const connection = found->second.connection;
    tables_.servers.erase(found);
    if (!connection) continue;
    network_.close(connection);
    on_disconnected(connection, failure(Errc::dropped, message_of(Errc::dropped)));
  }
}

}  // namespace pstorage::mds
