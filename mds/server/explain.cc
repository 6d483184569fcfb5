// `pstorage why` and `pstorage ok-to-stop`: what the planner knows, in words.
#include <algorithm>

#include "mds/server/metadata_server.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

constexpr int explained_max = 100;
constexpr int paths_max = 5;

std::string cs_text(Cs_id cs) { return "CS#" + std::to_string(cs.value); }

std::string list_text(std::vector<Cs_id> const& servers) {
  std::string text;
  for (auto const cs : servers) text += (text.empty() ? "" : ", ") + cs_text(cs);
  return text;
}

std::string count_text(std::uint64_t count, std::string const& word) {
  return std::to_string(count) + " " + word + (count == 1 ? "" : "s");
}

std::string seconds_text(Duration duration) {
  auto const seconds = std::chrono::duration_cast<std::chrono::seconds>(duration).count();
  return std::to_string(std::max<std::int64_t>(seconds, 0)) + " s";
}

std::string json_list(std::vector<Cs_id> const& servers) {
  std::string text = "[";
  for (auto const cs : servers) {
    text += (text.size() == 1 ? "" : ",") + std::to_string(cs.value);
  }
  return text + "]";
}

/// The chunk as it stands with the servers that answer now.
struct Standing {
  std::vector<Cs_id> live;  // in sync and active
  std::vector<Cs_id> away;  // in sync and not
};

Standing standing_of(Needy_chunk const& chunk, Servers const& servers) {
  Standing standing;
  for (auto const cs : chunk.in_sync) {
    (servers.is_active(cs) ? standing.live : standing.away).push_back(cs);
  }
  return standing;
}

std::string state_text(Needy_chunk const& chunk, Standing const& standing, std::uint32_t min,
                       Servers const& servers) {
  auto const live = standing.live.size();
  if (live == 0) return "offline";
  if (live < min) return "blocked";
  if (!chunk.syncing.empty() && live + chunk.syncing.size() >= chunk.norm) return "replicating";
  if (live < chunk.norm) return live == min ? "urgent" : "degraded";
  if (live > chunk.norm || !chunk.stale.empty()) return "overcommitted";
  bool const is_leaving = std::any_of(chunk.in_sync.begin(), chunk.in_sync.end(),
                                      [&](Cs_id cs) { return !servers.is_staying(cs); });
  if (is_leaving) return "leaving a server";
  if (kept_replicas(chunk, servers).size() < chunk.norm) return "misplaced";
  bool const is_spilled = std::any_of(chunk.in_sync.begin(), chunk.in_sync.end(), [&](Cs_id cs) {
    return servers.find(cs)->tier != chunk.tier;
  });
  return is_spilled ? "misplaced" : "healthy";
}

std::string reason_text(Needy_chunk const& chunk, Standing const& standing, std::uint32_t min,
                        Servers const& servers) {
  std::string text = std::to_string(standing.live.size()) + " of " +
                     count_text(chunk.norm, "replica") + " can be used";
  if (!standing.live.empty()) text += " (" + list_text(standing.live) + ")";
  if (standing.live.size() < min) {
    text += ", writes need " + std::to_string(min);
  }
  auto const state = [&](Cs_id cs) {
    auto const* const server = servers.find(cs);
    return server == nullptr ? std::string("removed") : server->state;
  };
  for (auto const cs : standing.away) text += "; " + cs_text(cs) + " is " + state(cs);
  for (auto const cs : chunk.stale) {
    auto const* const server = servers.find(cs);
    text += "; the replica on " + cs_text(cs) + " (" +
            (server != nullptr && server->slow ? "slow" : state(cs)) + ") is out of date";
  }
  for (auto const cs : chunk.syncing) text += "; " + cs_text(cs) + " is being brought up to date";
  for (auto const cs : chunk.in_sync) {
    auto const* const server = servers.find(cs);
    if (server == nullptr) continue;
    if (server->releasing) text += "; " + cs_text(cs) + " is being released";
    if (server->tier != chunk.tier) {
      text += "; " + cs_text(cs) + " is in tier " + std::to_string(server->tier) + ", not " +
              std::to_string(chunk.tier);
    }
  }
  if (standing.live.size() >= chunk.norm && kept_replicas(chunk, servers).size() < chunk.norm) {
    text += std::string("; they are not all on different ") + name_of(chunk.domain) + "s";
  }
  return text;
}

}  // namespace

/// When the first of `servers` that is inactive will be given up; nothing: none is.
std::optional<Duration> Metadata_server::time_to_offline(std::vector<Cs_id> const& servers) {
  auto const offline_after =
      std::chrono::milliseconds(setting_number(state_->database(), "mds.wd.offline_tout"));
  std::optional<Duration> soonest;
  for (auto const cs : servers) {
    auto const found = tables_.servers.find(cs);
    if (found == tables_.servers.end() || found->second.state != "inactive") continue;
    Duration const left = found->second.away_since + offline_after - clock_.now();
    if (!soonest || left < *soonest) soonest = left;
  }
  return soonest;
}

std::string Metadata_server::next_step(Needy_chunk const& chunk, Servers const& servers) {
  auto& database = state_->database();
  auto const standing = standing_of(chunk, servers);
  auto const lease = tables_.leases.find(
      File_id{database.number("SELECT file FROM chunk WHERE id = ?", 0, chunk.chunk)});
  if (standing.live.empty()) {
    bool const can_return = std::any_of(standing.away.begin(), standing.away.end(),
                                        [&](Cs_id cs) { return servers.find(cs) != nullptr; });
    if (!can_return) return "its last servers have been removed: the data cannot be read any more";
    return "start " + list_text(standing.away) + ": nobody else has this data; requests wait";
  }
  if (!chunk.syncing.empty()) {
    return list_text(chunk.syncing) + " is copying what it lacks from " + list_text(standing.live);
  }
  auto const kept = kept_replicas(chunk, servers);
  auto const live_kept = static_cast<std::size_t>(
      std::count_if(kept.begin(), kept.end(), [&](Cs_id cs) { return servers.is_active(cs); }));
  if (live_kept >= chunk.norm) {
    if (chunk.in_sync.size() + chunk.stale.size() > chunk.norm) {
      return "the surplus replica is removed within seconds";
    }
    return "it moves when a server of its tier has room";
  }
  if (lease != tables_.leases.end() && !lease->second.session) {
    return "its last writer left without closing the file: it is repaired when a chunk server has "
           "compared its replicas, which takes all servers that have one, or when it is opened";
  }
  auto waited_for = standing.away;
  waited_for.insert(waited_for.end(), chunk.stale.begin(), chunk.stale.end());
  if (auto const left = time_to_offline(waited_for)) {
    return "waits for the server to return; if it does not, a new replica is made in " +
           seconds_text(*left) + " (mds.wd.offline_tout)";
  }
  for (auto const cs : chunk.stale) {
    if (servers.is_active(cs) && servers.find(cs)->slow && servers.is_expected(cs)) {
      return "waits until " + cs_text(cs) +
             " is as quick as the others again; if it is not within mds.wd.offline_tout, a new "
             "replica is made";
    }
  }
  auto const offline_hosts_max = setting_number(database, "mds.wd.max_offline_cs_hosts");
  if (!replication_allowed(servers.all(), offline_hosts_max)) {
    return "nothing: more than " + std::to_string(offline_hosts_max) +
           " hosts are offline, which looks like a network failure: bring them back or raise "
           "mds.wd.max_offline_cs_hosts";
  }
  if (!chunk.resting.empty()) return "the last attempt failed: it is made again within 30 s";
  Placement_request request{1, 1, chunk.domain, chunk.tier, chunk.chunk_bytes, kept, chunk.garbage};
  for (auto const* const list : {&chunk.in_sync, &chunk.stale}) {
    request.excluded.insert(request.excluded.end(), list->begin(), list->end());
  }
  auto const placed = place(request, servers.all(), placement_rules(database), random_);
  if (!placed.has_value()) return "nothing: " + placed.error().text;
  std::uint64_t under_way = 0;
  for (auto const& [cs, count] : syncs_under_way()) under_way += count;
  return "a new replica is made when it is its turn (" + std::to_string(under_way) + " under way)";
}

void Metadata_server::explain_chunk(Chunk_row const& row, Inode const& inode,
                                    Servers const& servers, proto::Explanation& out) {
  Needy_chunk chunk{row.id,
                    row.version,
                    inode.attributes.norm,
                    inode.attributes.domain,
                    inode.attributes.tier,
                    inode.attributes.chunk_size,
                    {},
                    {},
                    {},
                    {},
                    tables_.resting(row.id, clock_.now())};
  for (auto const& replica : row.replicas) {
    auto& list = replica.state == proto::REPLICA_IN_SYNC   ? chunk.in_sync
                 : replica.state == proto::REPLICA_SYNCING ? chunk.syncing
                                                           : chunk.stale;
    list.push_back(replica.cs);
  }
  auto const min = inode.attributes.min;
  auto const standing = standing_of(chunk, servers);
  auto const state = state_text(chunk, standing, min, servers);
  out.set_total(out.total() + 1);
  if (state == "healthy") out.set_healthy(out.healthy() + 1);
  if (state == "healthy" || out.chunks_size() == explained_max) return;
  auto& one = *out.add_chunks();
  one.set_chunk(row.id.value);
  one.set_index(row.position);
  one.set_file(path_of(state_->database(), row.file));
  one.set_state(state);
  one.set_reason(reason_text(chunk, standing, min, servers));
  one.set_next(next_step(chunk, servers));
}

Outcome<void> Metadata_server::explain(proto::Explain const& query, proto::Explanation& out) {
  auto& database = state_->database();
  std::vector<Chunk_id> chunks;
  if (query.path().empty()) {
    chunks.push_back(Chunk_id{query.chunk()});
  } else {
    PS_TRY(auto const inode, resolve_file(database, query.path()));
    Rows rows(database, "SELECT id FROM chunk WHERE file = ? ORDER BY position");
    rows.bind(1, inode.id);
    while (rows.next()) chunks.push_back(Chunk_id{rows.u64(0)});
  }
  auto const candidates = load_candidates(database, tables_.space());
  Servers const servers(candidates);
  for (auto const id : chunks) {
    auto const chunk = load_chunk(database, id);
    auto const inode = chunk ? load_inode(database, chunk->file) : std::nullopt;
    if (!inode) {
      return failure(Errc::not_found, "there is no chunk " + std::to_string(id.value) +
                                          " (any more): 'pstorage why PATH' takes a file, too");
    }
    explain_chunk(*chunk, *inode, servers, out);
  }
  return success();
}

Outcome<void> Metadata_server::advise_servers(std::vector<Cs_id> const& servers,
                                              proto::Stop_advice& out) {
  auto& database = state_->database();
  auto const list = json_list(servers);
  // The effect is that of all of them together: two stops that are harmless alone may not be.
  Rows rows(database,
            "SELECT file, count(*), min(live) FROM (SELECT chunk.file AS file, min,"
            " sum(replica.state = 0 AND cs.state = 'active' AND cs.id NOT IN"
            " (SELECT value FROM json_each(?1))) AS live"
            " FROM chunk JOIN inode ON inode.id = chunk.file"
            " JOIN replica ON replica.chunk = chunk.id JOIN cs ON cs.id = replica.cs"
            " WHERE chunk.id IN (SELECT chunk FROM replica WHERE state = 0 AND cs IN"
            " (SELECT value FROM json_each(?1))) GROUP BY chunk.id HAVING live < min)"
            " GROUP BY file ORDER BY min(live), file");
  rows.bind(1, list);
  std::uint64_t chunks = 0;
  std::uint64_t files = 0;
  std::uint64_t lowest = ~0ull;
  while (rows.next()) {
    chunks += rows.u64(1);
    lowest = std::min(lowest, rows.u64(2));
    if (++files <= paths_max) out.add_paths(path_of(database, File_id{rows.u64(0)}));
  }
  if (chunks == 0) return success();
  out.set_ok(false);
  out.set_reason(count_text(chunks, "chunk") + " of " + count_text(files, "file") +
                 (lowest == 0 ? " could not be read" : " could not be written") +
                 " any more: wait until their other replicas are up to date ('pstorage stat')");
  return success();
}

void Metadata_server::advise_mds(proto::Ok_to_stop const& query, proto::Stop_advice& out) {
  proto::Services services;
  fill_services(services);
  std::size_t members = 0;
  std::size_t left = 0;
  for (auto const& service : services.services()) {
    if (service.kind() != "MDS") continue;
    ++members;
    bool const stops =
        std::find(query.mds().begin(), query.mds().end(), service.id()) != query.mds().end() ||
        std::find(query.hosts().begin(), query.hosts().end(), service.host_id()) !=
            query.hosts().end();
    if (service.state() == "avail" && !stops) ++left;
  }
  if (left > members / 2) return;
  out.set_ok(false);
  out.set_reason("only " + std::to_string(left) + " of " + count_text(members, "MDS") +
                 " would be left, which is no majority: the whole cluster would stop");
}

Outcome<void> Metadata_server::ok_to_stop(proto::Ok_to_stop const& query, proto::Stop_advice& out) {
  auto& database = state_->database();
  out.set_ok(true);
  out.set_reason("everything stays readable and writable");
  std::vector<Cs_id> servers;
  auto const candidates = load_candidates(database, tables_.space());
  for (auto const cs : query.servers()) {
    if (Servers(candidates).find(Cs_id{cs}) == nullptr) {
      return failure(Errc::not_found,
                     "there is no " + cs_text(Cs_id{cs}) + ": see 'pstorage list-services --all'");
    }
    servers.push_back(Cs_id{cs});
  }
  for (auto const& candidate : candidates) {
    bool const stops = std::find(query.hosts().begin(), query.hosts().end(),
                                 candidate.host.value) != query.hosts().end();
    if (stops) servers.push_back(candidate.cs);
  }
  if (!servers.empty()) PS_CHECK(advise_servers(servers, out));
  if (!query.mds().empty() || !query.hosts().empty()) advise_mds(query, out);
  return success();
}

}  // namespace pstorage::mds
