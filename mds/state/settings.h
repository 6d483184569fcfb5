// Counters, cluster settings and events in the database.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "mds/state/context.h"

namespace pstorage::mds {

inline constexpr std::uint64_t events_max = 100'000;

/// The next value of a counter that never goes back ("inode", "chunk", "cs", "epoch", "event").
std::uint64_t next_counter(Database& database, char const* name);
std::string meta_text(Database& database, char const* name);
void set_meta_text(Database& database, char const* name, std::string const& text);

/// A setting of the cluster as in pstorage-config(1).
struct Setting {
  char const* name;
  char const* initial;
  std::uint64_t lowest;
  std::uint64_t highest;
  char const* meaning;
};
std::vector<Setting> const& known_settings();
std::string setting_text(Database& database, std::string const& name);
std::uint64_t setting_number(Database& database, std::string const& name);

/// Appends to the event log (at most events_max are kept). Severity: INF WRN ERR.
void add_event(Context& context, char const* source, char const* severity, std::string const& text);

struct Server_counts {
  std::uint64_t active = 0;
  std::uint64_t inactive = 0;
  std::uint64_t offline = 0;
  std::uint64_t other = 0;  // failed
};
Server_counts count_servers(Database& database);
/// Writes an event when the health of the cluster has changed with the servers' states.
void note_health(Context& context);

std::vector<std::string> split_lines(std::string const& text);
/// 16 hex digits.
std::string host_text(Host_id host);

}  // namespace pstorage::mds
