// What the leader does by itself as time passes: dead sessions, silent servers, recovery.
#include <algorithm>

#include "mds/server/metadata_server.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

constexpr int needy_batch_max = 128;
constexpr int drop_batch_max = 256;

std::string seconds_text(Duration duration) {
  return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(duration).count()) + " s";
}

bool has_other_live(Chunk_row const& chunk, Cs_id cs, std::vector<Candidate> const& candidates) {
  return std::any_of(chunk.replicas.begin(), chunk.replicas.end(), [&](Replica_row const& row) {
    return row.state == proto::REPLICA_IN_SYNC && row.cs != cs &&
           std::any_of(candidates.begin(), candidates.end(), [&](Candidate const& candidate) {
             return candidate.cs == row.cs && candidate.state == "active";
           });
  });
}

}  // namespace

void Metadata_server::watch_sessions(Time_point now) {
  proto::Mds_request request;
  for (auto& [session, memory] : tables_.sessions) {
    if (memory.is_expiring || now - memory.last_heard <= options_.session_timeout) continue;
    memory.is_expiring = true;
    request.mutable_expire_sessions()->add_sessions(session.value);
  }
  if (request.has_expire_sessions()) propose_own(std::move(request));
}

void Metadata_server::set_cs_state(Cs_id cs, Cs_memory& memory, char const* state,
                                   std::string const& reason) {
  if (memory.proposed == state) return;
  memory.proposed = state;
  proto::Mds_request request;
  auto& command = *request.mutable_set_cs_state();
  command.set_cs(cs.value);
  command.set_state(state);
  command.set_reason(reason);
  propose_own(std::move(request));
}

void Metadata_server::watch_servers(Time_point now) {
  for (auto& [cs, memory] : tables_.servers) {
    if (memory.state == "active" && now - memory.last_heartbeat > options_.cs_timeout) {
      set_cs_state(cs, memory, "inactive", "no heartbeat for " + seconds_text(options_.cs_timeout));
    } else if (memory.state == "inactive") {
      // Asked for only now: at each tick the question was most of an idle server's CPU.
      auto const offline_after =
          std::chrono::milliseconds(setting_number(state_->database(), "mds.wd.offline_tout"));
      if (now - memory.away_since > offline_after)
        set_cs_state(cs, memory, "offline", "away for " + seconds_text(offline_after));
    }
    if (memory.connection && now - memory.last_pushed > options_.push_interval) {
      memory.last_pushed = now;
      memory.is_deleting = false;
      push_all_orders(cs);
      push_garbage(cs);
    }
  }
}

void Metadata_server::watch_space() {
  auto const space = disk_.space();
  if (!space.has_value()) return;
  bool const is_low = space.value().free_bytes < options_.space_reserve_bytes;
  if (is_low == low_space_) return;
  low_space_ = is_low;
  if (is_low) {
    log_.error("the disk of the metadata server is nearly full: nothing new is accepted",
               {{"free_mb", space.value().free_bytes >> 20}});
  } else {
    log_.info("the disk of the metadata server has room again");
  }
}

void Metadata_server::checkpoint() {
  if (options_.database_path == ":memory:" || stalled_ ||
      state_->wal_bytes() < options_.checkpoint_bytes) {
    return;
  }
  auto const done = state_->checkpoint();
  if (!done.has_value()) {
    if (errc_of(done.error().code) != Errc::no_space) fatal(done.error());
    return;
  }
  entries_.cut(state_->durable() + 1);
}

std::map<Cs_id, std::uint32_t> Metadata_server::syncs_under_way() {
  std::map<Cs_id, std::uint32_t> busy;
  for (auto const& [cs, memory] : tables_.servers) {
    auto const count =
        state_->database().number("SELECT count(*) FROM replica WHERE cs = ? AND state = 1", 0, cs);
    if (count != 0) busy[cs] = static_cast<std::uint32_t>(count);
  }
  return busy;
}

std::vector<Needy_chunk> Metadata_server::next_needy_chunks() {
  auto& database = state_->database();
  std::vector<Chunk_id> ids;
  {
    // By state and so by need; a batch at a time, going round, so that chunks that cannot be
    // helped now do not keep the others waiting.
    Rows rows(database,
              "SELECT state, id FROM chunk WHERE state <> 0 AND state <= 3"
              " AND (state, id) > (?, ?) ORDER BY state, id LIMIT ?");
    rows.bind(1, plan_cursor_state_);
    rows.bind(2, plan_cursor_chunk_);
    rows.bind(3, needy_batch_max);
    while (rows.next()) {
      plan_cursor_state_ = rows.u64(0);
      plan_cursor_chunk_ = rows.u64(1);
      ids.push_back(Chunk_id{rows.u64(1)});
    }
  }
  if (ids.size() < needy_batch_max) plan_cursor_state_ = plan_cursor_chunk_ = 0;
  std::vector<Needy_chunk> needy;
  for (auto const id : ids) {
    auto const chunk = load_chunk(database, id);
    auto const inode = chunk ? load_inode(database, chunk->file) : std::nullopt;
    if (!inode) continue;
    // The last writer vanished and may still be writing: only the next one can fence it, and only
    // then may a replica be declared complete.
    auto const lease = tables_.leases.find(chunk->file);
    if (lease != tables_.leases.end() && !lease->second.session) continue;
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
                    tables_.resting(id, clock_.now())};
    for (auto const& replica : chunk->replicas) {
      auto& list = replica.state == proto::REPLICA_IN_SYNC   ? one.in_sync
                   : replica.state == proto::REPLICA_SYNCING ? one.syncing
                                                             : one.stale;
      list.push_back(replica.cs);
    }
    Rows garbage(database, "SELECT cs FROM garbage WHERE chunk = ? ORDER BY cs");
    garbage.bind(1, id);
    while (garbage.next()) one.garbage.push_back(Cs_id{garbage.u32(0)});
    needy.push_back(std::move(one));
  }
  return needy;
}

/// Replicas that nobody has reported because nobody writes: after their server went offline they
/// count no longer.
void Metadata_server::drop_offline_replicas(std::vector<Candidate> const& candidates) {
  auto& database = state_->database();
  proto::Mds_request request;
  for (auto const& candidate : candidates) {
    if (candidate.state != "offline") {
      drop_cursor_.erase(candidate.cs);
      continue;
    }
    auto& cursor = drop_cursor_[candidate.cs];
    int found = 0;
    Rows rows(database,
              "SELECT chunk, version FROM replica JOIN chunk ON chunk.id = replica.chunk"
              " WHERE cs = ? AND replica.state = 0 AND chunk > ? ORDER BY chunk LIMIT ?");
    rows.bind(1, candidate.cs);
    rows.bind(2, cursor);
    rows.bind(3, drop_batch_max);
    while (rows.next()) {
      ++found;
      cursor = rows.u64(0);
      auto chunk = load_chunk(database, Chunk_id{rows.u64(0)});
      // Without another good replica within reach nothing would be gained.
      if (!chunk || !has_other_live(*chunk, candidate.cs, candidates)) continue;
      auto& one = *request.mutable_drop_offline()->add_chunks();
      one.set_chunk(rows.u64(0));
      one.set_version(rows.u32(1));
      one.set_cs(candidate.cs.value);
    }
    // Round again later: the others of a chunk may have come back meanwhile.
    if (found < drop_batch_max) cursor = 0;
  }
  if (request.has_drop_offline()) propose_own(std::move(request));
}

void Metadata_server::plan(Time_point now) {
  last_plan_ = now;
  planner_due_ = false;
  tables_.forget_setbacks(now);
  if (stalled_ || low_space_) return;
  auto& database = state_->database();
  auto const busy = syncs_under_way();
  std::uint64_t total = 0;
  for (auto const& [cs, count] : busy) total += count;
  auto const needy =
      total < options_.recovery.syncs_total ? next_needy_chunks() : std::vector<Needy_chunk>();
  auto const candidates = load_candidates(database, tables_.space());
  auto const offline_hosts_max = setting_number(database, "mds.wd.max_offline_cs_hosts");
  bool const has_offline =
      std::any_of(candidates.begin(), candidates.end(),
                  [](Candidate const& candidate) { return candidate.state == "offline"; });
  if (has_offline && replication_allowed(candidates, offline_hosts_max)) {
    drop_offline_replicas(candidates);
  }
  if (needy.empty()) return;
  auto const choices = plan_recovery(needy, candidates, busy, options_.recovery,
                                     placement_rules(database), offline_hosts_max, random_);
  if (choices.empty()) return;
  proto::Mds_request request;
  for (auto const& choice : choices) {
    auto& one = *request.mutable_start_sync()->add_chunks();
    one.set_chunk(choice.chunk.value);
    one.set_version(choice.version.value);
    one.set_cs(choice.cs.value);
  }
  propose_own(std::move(request));
}

}  // namespace pstorage::mds
