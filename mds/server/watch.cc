// What the leader does by itself as time passes: dead sessions, silent servers, recovery.
#include <algorithm>

#include "mds/server/metadata_server.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

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

void Metadata_server::watch_slow(Time_point now) {
  for (auto const& change : tables_.slow.judge(now)) {
    auto const memory = tables_.servers.find(change.cs);
    if (memory == tables_.servers.end() || memory->second.state == "dropped") continue;
    planner_due_ = true;
    add_event("MDS", change.is_slow ? "WRN" : "INF",
              "CS#" + std::to_string(change.cs.value) +
                  (change.is_slow ? " is slow: " + change.reason +
                                        ". It gets no new data until it is as quick as the others"
                                  : " is as quick as the others again"));
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

/// Its syncs take seconds on a busy disk; a leader that waited for them would be voted out.
void Metadata_server::checkpoint() {
  if (options_.database_path == ":memory:" || stalled_ || checkpoint_.valid() ||
      state_->wal_bytes() < options_.checkpoint_bytes) {
    return;
  }
  auto const job = std::make_shared<Checkpoint>(
      [path = options_.database_path] { return Database::checkpoint(path); });
  checkpoint_ = job->get_future();
  auto const number = ++checkpoints_;
  options_.off_loop([job] { (*job)(); },
                    [this, number, applied = state_->applied()] {
                      if (number == checkpoints_ && !fatal_) end_checkpoint(applied);
                    });
}

void Metadata_server::end_checkpoint(std::uint64_t applied) {
  auto const complete = checkpoint_.get();
  if (!complete.has_value()) {
    if (errc_of(complete.error().code) != Errc::no_space) return fatal(complete.error());
  } else if (complete.value()) {
    state_->checkpointed(applied);
    entries_.cut(applied + 1);
  }
  if (!stalled_) apply_queue();
}

/// Nobody may replace or close the database under a checkpoint. It is forgotten.
void Metadata_server::await_checkpoint() {
  if (checkpoint_.valid()) static_cast<void>(checkpoint_.get());
  ++checkpoints_;
}

/// SQLite's log begins anew only when all of it was written back at some moment: committed entries
/// wait for that rather than let it grow for ever.
bool Metadata_server::holds_entries() const {
  return checkpoint_.valid() && state_->wal_bytes() >= 4 * options_.checkpoint_bytes;
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
  auto candidates = load_candidates(database, tables_.space());
  auto const offline_after =
      std::chrono::milliseconds(setting_number(database, "mds.wd.offline_tout"));
  for (auto& candidate : candidates) {
    candidate.given_up = tables_.slow.slow_for(candidate.cs, now) > offline_after;
  }
  auto const offline_hosts_max = setting_number(database, "mds.wd.max_offline_cs_hosts");
  bool const has_offline =
      std::any_of(candidates.begin(), candidates.end(),
                  [](Candidate const& candidate) { return candidate.state == "offline"; });
  if (has_offline && replication_allowed(candidates, offline_hosts_max)) {
    drop_offline_replicas(candidates);
  }
  watch_cluster_space(candidates);
  heal(now, candidates);
}

}  // namespace pstorage::mds
