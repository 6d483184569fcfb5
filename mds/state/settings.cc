#include "mds/state/settings.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "mds/state/chunks.h"

namespace pstorage::mds {

std::uint64_t next_counter(Database& database, char const* name) {
  database.run(
      "INSERT INTO meta(name, number) VALUES(?, 1)"
      " ON CONFLICT(name) DO UPDATE SET number = number + 1",
      name);
  return database.number("SELECT number FROM meta WHERE name = ?", 0, name);
}

std::string meta_text(Database& database, char const* name) {
  Rows rows(database, "SELECT text FROM meta WHERE name = ?");
  rows.bind(1, name);
  return rows.next() ? rows.text(0) : std::string();
}

void set_meta_text(Database& database, char const* name, std::string const& text) {
  database.run(
      "INSERT INTO meta(name, text) VALUES(?, ?)"
      " ON CONFLICT(name) DO UPDATE SET text = excluded.text",
      name, text);
}

std::vector<Setting> const& known_settings() {
  static std::vector<Setting> const settings = {
      {"cs.log.level", "0", 0, 4,
       "what chunk servers log: 1 errors, 2 warnings, 3 changes, 4 all; 0: as each was started"},
      {"cs.scrub-period", "604800", 0, 31'536'000,
       "seconds in which a chunk server reads everything it has once; 0: never"},
      {"freespace.threshold.mb", "1024", 0, 1u << 30,
       "MB: less allocatable space than this is a warning"},
      {"freespace.threshold.percent", "20", 0, 100,
       "percent: less allocatable space than this is a warning"},
      {"mds.alloc.fill_margin", "5", 0, 90, "percent of a chunk server that new chunks leave free"},
      {"mds.alloc.free_space_margin", "512", 0, 1u << 20,
       "MB of a chunk server that new chunks leave free"},
      {"mds.wd.max_offline_cs_hosts", "2", 0, 1u << 16,
       "more offline hosts than this: no automatic replication"},
      {"mds.wd.offline_tout", "300000", 1000, 86'400'000,
       "milliseconds until an inactive chunk server is offline and its chunks are replicated"},
      {"net.encryption", "0", 0, 1, "1: connections stay encrypted after authentication"},
  };
  return settings;
}

std::string setting_text(Database& database, std::string const& name) {
  Rows rows(database, "SELECT value FROM config WHERE name = ?");
  rows.bind(1, name);
  if (rows.next()) return rows.text(0);
  for (auto const& setting : known_settings()) {
    if (name == setting.name) return setting.initial;
  }
  return {};
}

std::uint64_t setting_number(Database& database, std::string const& name) {
  return std::strtoull(setting_text(database, name).c_str(), nullptr, 10);
}

void add_event(Context& context, char const* source, char const* severity,
               std::string const& text) {
  auto const number = next_counter(context.database, "event");
  context.database.run(
      "INSERT INTO event(number, time_ms, source, severity, text) VALUES(?, ?, ?, ?, ?)", number,
      context.wall_ms, source, severity, text);
  if (number > events_max) {
    context.database.run("DELETE FROM event WHERE number <= ?", number - events_max);
  }
}

Server_counts count_servers(Database& database) {
  Server_counts counts;
  Rows rows(database, "SELECT state, count(*) FROM cs GROUP BY state ORDER BY state");
  while (rows.next()) {
    auto const state = rows.text(0);
    if (state == "active") {
      counts.active += rows.u64(1);
    } else if (state == "inactive") {
      counts.inactive += rows.u64(1);
    } else if (state == "offline") {
      counts.offline += rows.u64(1);
    } else if (state == "failed") {  // not "new" (its csd has never run) nor "dropped"
      counts.other += rows.u64(1);
    }
  }
  return counts;
}

void note_health(Context& context) {
  auto const counts = count_servers(context.database);
  bool const healthy = counts.inactive == 0 && counts.offline == 0 && counts.other == 0;
  auto text = healthy
                  ? "The cluster is healthy with " + std::to_string(counts.active) + " active CS"
                  : "The cluster is degraded with " + std::to_string(counts.active) + " active, " +
                        std::to_string(counts.inactive) + " inactive, " +
                        std::to_string(counts.offline) + " offline CS";
  if (counts.other != 0) text += ", " + std::to_string(counts.other) + " failed CS";
  if (meta_text(context.database, "health") == text) return;
  set_meta_text(context.database, "health", text);
  add_event(context, "MDS", healthy ? "INF" : "WRN", text);
}

std::vector<std::string> split_lines(std::string const& text) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    auto const end = std::min(text.find('\n', at), text.size());
    if (end != at) lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

std::string host_text(Host_id host) {
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(host.value));
  return text;
}

std::vector<Candidate> load_candidates(Database& database, std::vector<Space_report> const& space) {
  std::vector<Candidate> candidates;
  Rows rows(database,
            "SELECT cs.id, host, location, tier, total, free, state, release.cs IS NOT NULL FROM cs"
            " LEFT JOIN host ON host.id = cs.host LEFT JOIN release ON release.cs = cs.id"
            " WHERE state <> 'dropped' ORDER BY cs.id");
  while (rows.next()) {
    Candidate candidate{Cs_id{rows.u32(0)}, Host_id{rows.u64(1)}, rows.text(2), rows.u32(3),
                        rows.u64(4),        rows.u64(5),          false,        rows.text(6),
                        rows.flag(7)};
    candidate.usable = candidate.state == "active" && !candidate.releasing;
    candidates.push_back(std::move(candidate));
  }
  for (auto const& report : space) {
    for (auto& candidate : candidates) {
      if (candidate.cs != report.cs) continue;
      candidate.total_bytes = report.total_bytes;
      candidate.free_bytes = report.free_bytes;
      candidate.slow = report.slow;
    }
  }
  return candidates;
}

Placement_rules placement_rules(Database& database) {
  return {setting_number(database, "mds.alloc.fill_margin"),
          setting_number(database, "mds.alloc.free_space_margin") << 20};
}

}  // namespace pstorage::mds
