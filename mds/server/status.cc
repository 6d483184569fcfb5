// What stat, top and list-services show.
#include <algorithm>

#include "mds/server/metadata_server.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

std::uint64_t milliseconds(Duration duration) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

/// How a chunk stands when only replicas on active servers count.
char const* effective_state(std::uint64_t live, std::uint64_t syncing, std::uint64_t norm,
                            std::uint64_t min) {
  if (live == 0) return "offline";
  if (live < min) return "blocked";
  if (syncing != 0 && live + syncing >= norm) return "replicating";
  if (live > norm) return "overcommitted";
  if (live == norm) return "healthy";
  return live == min ? "urgent" : "degraded";
}

/// As in the manual: "releasing" tells more than "active".
std::string shown_state(std::string const& state, bool is_releasing) {
  if (!is_releasing) return state;
  return state == "active" ? "releasing" : state + " releasing";
}

/// `rates`: reads and their bytes, writes and their bytes, syncs, each a second.
void set_rates(auto& service, auto const& rates) {
  service.set_read_ops_per_s(rates[0]);
  service.set_read_bytes_per_s(rates[1]);
  service.set_write_ops_per_s(rates[2]);
  service.set_write_bytes_per_s(rates[3]);
  service.set_syncs_per_s(rates[4]);
}

}  // namespace

Space_figures Metadata_server::space_figures(std::vector<Candidate> const& candidates) {
  auto& database = state_->database();
  auto const rules = placement_rules(database);
  Space_figures space;
  for (auto const& candidate : candidates) {
    if (candidate.state != "active" && candidate.state != "inactive") continue;
    space.total += candidate.total_bytes;
    space.free += candidate.free_bytes;
    auto const margin =
        std::max(rules.free_margin_bytes, candidate.total_bytes / 100 * rules.fill_margin_percent);
    space.allocatable += candidate.free_bytes > margin ? candidate.free_bytes - margin : 0;
    space.allocatable_total += candidate.total_bytes > margin ? candidate.total_bytes - margin : 0;
  }
  auto const root = load_inode(database, root_inode);
  auto const norm = root ? root->attributes.norm : 1;
  space.allocatable /= norm;
  space.allocatable_total /= norm;
  bool const is_low =
      space.allocatable < setting_number(database, "freespace.threshold.mb") << 20 ||
      space.allocatable <
          space.allocatable_total / 100 * setting_number(database, "freespace.threshold.percent");
  space.state = space.allocatable == 0 ? "full" : is_low ? "low" : "ok";
  return space;
}

/// Events for people: the space gets low, is gone, is back.
void Metadata_server::watch_cluster_space(std::vector<Candidate> const& candidates) {
  if (clock_.now() - lead_since_ < options_.cs_timeout) return;  // not all have been heard
  auto const space = space_figures(candidates);
  if (space.total == 0 || space.state == space_state_) return;
  bool const is_first = space_state_.empty();
  space_state_ = space.state;
  if (is_first && space.state == "ok") return;
  auto const left = std::to_string(space.allocatable >> 20) + " MB of " +
                    std::to_string(space.allocatable_total >> 20) + " MB";
  if (space.state == "ok") return add_event("MDS", "INF", "There is room again: " + left);
  if (space.state == "low") {
    return add_event("MDS", "WRN",
                     "Space runs low: " + left + " can be allocated; add chunk servers or delete");
  }
  add_event("MDS", "ERR",
            "The cluster is full: new data is refused or waits (attribute on-full); overwriting, "
            "trimming and deleting go on; add chunk servers or delete");
}

void Metadata_server::fill_services(proto::Services& services) {
  fill_members(services);
  fill_servers(services);
  fill_clients(services);
}

void Metadata_server::fill_servers(proto::Services& services) {
  auto& database = state_->database();
  std::map<Cs_id, std::uint32_t> unique;
  {
    Rows rows(database,
              "SELECT cs, count(*) FROM (SELECT max(cs) AS cs FROM replica WHERE state = 0"
              " GROUP BY chunk HAVING count(*) = 1) GROUP BY cs");
    while (rows.next()) unique[Cs_id{rows.u32(0)}] = rows.u32(1);
  }
  Rows rows(database,
            "SELECT cs.id, cs.state, host.name, cs.host, addresses, tier, location,"
            " release.cs IS NOT NULL FROM cs LEFT JOIN host ON host.id = cs.host"
            " LEFT JOIN release ON release.cs = cs.id WHERE cs.state <> 'dropped' ORDER BY cs.id");
  while (rows.next()) {
    Cs_id const cs{rows.u32(0)};
    auto const memory = tables_.servers.find(cs);
    auto& service = *services.add_services();
    service.set_kind("CS");
    service.set_id(cs.value);
    service.set_state(shown_state(rows.text(1), rows.flag(7)));
    service.set_host_name(rows.text(2));
    service.set_host_id(rows.u64(3));
    auto const addresses = split_lines(rows.text(4));
    if (!addresses.empty()) service.set_address(addresses.front());
    service.set_tier(rows.u32(5));
    service.set_location(rows.text(6));
    service.set_unique(unique[cs]);
    service.set_replicas(static_cast<std::uint32_t>(
        database.number("SELECT count(*) FROM replica WHERE cs = ?", 0, cs)));
    if (memory == tables_.servers.end()) continue;
    auto const& stats = memory->second.stats;
    service.set_total_bytes(stats.total_bytes());
    service.set_free_bytes(stats.free_bytes());
    service.set_io_latency_us(stats.io_latency_us());
    service.set_io_latency_max_us(stats.io_latency_max_us());
    service.set_queue_depth(stats.queue_depth());
    service.set_io_wait_percent(stats.io_wait_percent());
    service.set_flags(stats.flags());
    service.set_slow(tables_.slow.is_slow(cs));
    service.set_read_bytes(stats.read_bytes());
    service.set_write_bytes(stats.write_bytes());
    service.set_read_ops(stats.read_ops());
    service.set_write_ops(stats.write_ops());
    service.set_syncs(stats.syncs());
    service.set_pulled_bytes(stats.pulled_bytes());
    service.set_clock_offset_ms(memory->second.clock_offset_ms);
    service.set_version(stats.version());
    auto const rates = memory->second.rates.a_second(clock_.now());
    set_rates(service, rates);
    service.set_pulled_bytes_per_s(rates[5]);
  }
}

void Metadata_server::fill_clients(proto::Services& services) {
  std::map<Session_id, std::uint32_t> leases;
  for (auto const& [file, lease] : tables_.leases) ++leases[lease.session];
  Rows clients(state_->database(),
               "SELECT id, name, host, opened_ms FROM session WHERE role = ?"
               " ORDER BY opened_ms, id");
  clients.bind(1, static_cast<int>(Role::client));
  while (clients.next()) {
    Session_id const session{clients.u64(0)};
    auto& service = *services.add_services();
    service.set_kind("CLIENT");
    service.set_id(session.value);
    service.set_name(clients.text(1));
    service.set_host_id(clients.u64(2));
    auto const at = service.name().rfind('@');
    if (at != std::string::npos) service.set_host_name(service.name().substr(at + 1));
    service.set_state("active");
    service.set_leases(leases[session]);
    auto const wall = clock_.wall_ms();
    service.set_uptime_ms(wall > clients.u64(3) ? wall - clients.u64(3) : 0);
    auto const memory = tables_.sessions.find(session);
    if (memory == tables_.sessions.end()) continue;
    auto const& counters = memory->second.counters;
    service.set_read_bytes(counters.read_bytes());
    service.set_write_bytes(counters.write_bytes());
    service.set_read_ops(counters.read_ops());
    service.set_write_ops(counters.write_ops());
    service.set_syncs(counters.flushes());
    service.set_io_latency_us(counters.io_latency_us());
    service.set_io_latency_max_us(counters.io_latency_max_us());
    service.set_version(counters.version());
    auto const rates = memory->second.rates.a_second(clock_.now());
    set_rates(service, rates);
  }
}

void Metadata_server::fill_chunk_counts(proto::Status_reply& status) {
  auto& database = state_->database();
  std::map<std::string, std::uint64_t> counts;
  for (auto const* const name : {"healthy", "degraded", "urgent", "blocked", "offline",
                                 "replicating", "overcommitted", "deleting", "void"}) {
    counts[name] = 0;
  }
  auto const total = database.number("SELECT count(*) FROM chunk", 0);
  counts["healthy"] = total;
  {
    Rows rows(database, "SELECT state, count(*) FROM chunk WHERE state <> 0 GROUP BY state");
    while (rows.next()) {
      counts[chunk_state_names[rows.u64(0) % chunk_state_names.size()]] += rows.u64(1);
      counts["healthy"] -= rows.u64(1);
    }
  }
  // The map changes only when a writer or the planner asks for it; what is true now also depends
  // on which servers answer.
  Rows rows(database,
            "SELECT state, norm, min, live, syncing, count(*) FROM"
            " (SELECT chunk.state AS state, norm, min,"
            " sum(replica.state = 0 AND cs.state = 'active') AS live,"
            " sum(replica.state = 1) AS syncing"
            " FROM chunk JOIN inode ON inode.id = chunk.file"
            " JOIN replica ON replica.chunk = chunk.id JOIN cs ON cs.id = replica.cs"
            " WHERE chunk.id IN (SELECT chunk FROM replica WHERE state = 0 AND cs IN"
            " (SELECT id FROM cs WHERE state <> 'active')) GROUP BY chunk.id)"
            " GROUP BY state, norm, min, live, syncing");
  while (rows.next()) {
    counts[chunk_state_names[rows.u64(0) % chunk_state_names.size()]] -= rows.u64(5);
    counts[effective_state(rows.u64(3), rows.u64(4), rows.u64(1), rows.u64(2))] += rows.u64(5);
  }
  counts["deleting"] = database.number("SELECT count(DISTINCT chunk) FROM garbage", 0);
  for (auto const& [name, count] : counts) (*status.mutable_chunks())[name] = count;
  status.set_chunk_count(total);
  status.set_chunk_replicas(database.number("SELECT count(*) FROM replica", 0));
}

void Metadata_server::fill_status(proto::Status_reply& status) {
  auto& database = state_->database();
  status.set_cluster(options_.cluster);
  status.set_cluster_uuid(options_.cluster_uuid);
  auto const uptime = clock_.now() - lead_since_;
  status.set_epoch(entries_.term());
  status.set_epoch_uptime_ms(milliseconds(uptime));

  auto const candidates = load_candidates(database, tables_.space());
  bool all_heard = true;
  for (auto const& candidate : candidates) {
    auto const memory = tables_.servers.find(candidate.cs);
    all_heard = all_heard && memory != tables_.servers.end() && memory->second.connection;
  }
  auto const space = space_figures(candidates);
  status.set_total_bytes(space.total);
  status.set_free_bytes(space.free);
  status.set_allocatable_bytes(space.allocatable);
  status.set_allocatable_total_bytes(space.allocatable_total);
  status.set_space_state(space.state);
  auto const root = load_inode(database, root_inode);
  status.set_replication_norm(root ? root->attributes.norm : 1);
  status.set_replication_min(root ? root->attributes.min : 1);

  auto const counts = count_servers(database);
  if (!replication_allowed(candidates, setting_number(database, "mds.wd.max_offline_cs_hosts"))) {
    status.set_health("failure");
    status.set_health_reason("too many hosts are offline: automatic replication is suspended");
  } else if (!all_heard && uptime < options_.cs_timeout) {
    status.set_health("unknown");
    status.set_health_reason("the master is new: not all CS have reported yet");
  } else if (counts.inactive + counts.offline + counts.other != 0) {
    status.set_health("degraded");
    status.set_health_reason(std::to_string(counts.inactive) + " inactive, " +
                             std::to_string(counts.offline) + " offline, " +
                             std::to_string(counts.other) + " failed CS");
  } else {
    status.set_health("healthy");
  }
  fill_chunk_counts(status);
  fill_repair(status);
  status.set_inodes(database.number("SELECT count(*) FROM inode", 0));
  status.set_files(database.number("SELECT count(*) FROM inode WHERE type = 0", 0));
  status.set_file_maps(database.number("SELECT count(*) FROM inode WHERE chunks > 0", 0));
  status.set_file_bytes(database.number("SELECT sum(size) FROM inode", 0));
  proto::Services services;
  fill_services(services);
  status.mutable_services()->Swap(services.mutable_services());
}

}  // namespace pstorage::mds
