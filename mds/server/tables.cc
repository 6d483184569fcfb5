#include "mds/server/tables.h"

#include <algorithm>

#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

constexpr Duration setback_min = std::chrono::milliseconds(200);
constexpr Duration setback_max = std::chrono::seconds(30);

}  // namespace

void Leader_tables::load(Database& database, Time_point now) {
  load_settings(database);
  {
    Rows rows(database, "SELECT id FROM session");
    while (rows.next()) sessions[Session_id{rows.u64(0)}].last_heard = now;
  }
  {
    Rows rows(database, "SELECT id FROM cs WHERE state <> 'dropped'");
    while (rows.next()) refresh_server(database, Cs_id{rows.u32(0)}, now);
  }
  Rows rows(database, "SELECT file, session, epoch, settling FROM lease");
  while (rows.next()) {
    leases[File_id{rows.u64(0)}] = {Session_id{rows.u64(1)}, Epoch{rows.u32(2)}, rows.flag(3)};
  }
}

void Leader_tables::load_settings(Database& database) {
  scrub_period_s = setting_number(database, "cs.scrub-period");
  log_level = static_cast<std::uint32_t>(setting_number(database, "cs.log.level"));
}

void Leader_tables::refresh_session(Database& database, Session_id session, Time_point now) {
  if (database.number("SELECT 1 FROM session WHERE id = ?", 0, session) == 0) {
    sessions.erase(session);
    return;
  }
  sessions[session].last_heard = now;
}

void Leader_tables::refresh_server(Database& database, Cs_id cs, Time_point now) {
  Rows rows(database, "SELECT state, total, free, flags FROM cs WHERE id = ?");
  rows.bind(1, cs);
  if (!rows.next()) {
    servers.erase(cs);
    return;
  }
  auto const [place, is_new] = servers.try_emplace(cs);
  auto& memory = place->second;
  auto state = rows.text(0);
  bool const was_active = memory.state == "active";
  if (is_new || (state == "active" && !was_active)) memory.last_heartbeat = now;
  if (is_new || (was_active && state != "active")) memory.away_since = now;
  if (is_new || state == "active") {
    memory.stats.set_total_bytes(rows.u64(1));
    memory.stats.set_free_bytes(rows.u64(2));
    memory.stats.set_flags(rows.text(3));
  }
  memory.state = std::move(state);
  memory.proposed.clear();
}

void Leader_tables::refresh_lease(Database& database, File_id file) {
  auto const lease = load_lease(database, file);
  if (lease) {
    leases[file] = {lease->session, lease->epoch, lease->settling};
  } else {
    leases.erase(file);
  }
}

void Leader_tables::note_failed_sync(Chunk_id chunk, Cs_id cs, Time_point now) {
  auto& setback = setbacks[{chunk, cs}];
  setback.pause = std::clamp(setback.pause * 2, setback_min, setback_max);
  setback.until = now + setback.pause;
}

std::vector<Cs_id> Leader_tables::resting(Chunk_id chunk, Time_point now) const {
  std::vector<Cs_id> found;
  for (auto at = setbacks.lower_bound({chunk, Cs_id{}});
       at != setbacks.end() && at->first.first == chunk; ++at) {
    if (now < at->second.until) found.push_back(at->first.second);
  }
  return found;
}

void Leader_tables::forget_setbacks_of(Cs_id cs) {
  std::erase_if(setbacks, [cs](auto const& one) { return one.first.second == cs; });
}

void Leader_tables::forget_setbacks(Time_point now) {
  std::erase_if(setbacks, [now](auto const& one) { return now > one.second.until + setback_max; });
}

Connection_id Leader_tables::holder_connection(File_id file) const {
  auto const lease = leases.find(file);
  if (lease == leases.end() || !lease->second.session) return {};
  auto const session = sessions.find(lease->second.session);
  return session == sessions.end() ? Connection_id{} : session->second.connection;
}

std::vector<Space_report> Leader_tables::space() const {
  std::vector<Space_report> reports;
  for (auto const& [cs, memory] : servers) {
    if (memory.state != "active") continue;
    reports.push_back(
        {cs, memory.stats.total_bytes(), memory.stats.free_bytes(), slow.is_slow(cs)});
  }
  return reports;
}

}  // namespace pstorage::mds
