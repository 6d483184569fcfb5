#include "mds/server/orphans.h"

#include <algorithm>
#include <vector>

#include "mds/server/metadata_server.h"

namespace pstorage::mds {
namespace {

constexpr Duration look_interval = std::chrono::seconds(1);
constexpr std::size_t settling_max = 8;  // files at once
// An attempt that has not ended by then has failed.
constexpr Duration pause_min = std::chrono::seconds(60);
constexpr Duration pause_max = std::chrono::minutes(10);
// Until all servers are there.
constexpr Duration wait_for_servers = std::chrono::seconds(10);

}  // namespace

void Metadata_server::watch_orphans(Time_point now) {
  if (now - orphans_.last_look < look_interval) return;
  orphans_.last_look = now;
  std::erase_if(orphans_.known, [this](auto const& one) {
    auto const lease = tables_.leases.find(one.first);
    return lease == tables_.leases.end() || (lease->second.session && !lease->second.settling);
  });
  std::size_t under_way = 0;
  std::vector<File_id> due;
  for (auto const& [file, lease] : tables_.leases) {
    if (lease.settling) ++under_way;
    if (lease.session) continue;
    // Its user may be about to come back.
    auto const [one, is_new] =
        orphans_.known.try_emplace(file, Orphans::One{now + options_.settle_after, pause_min});
    if (now >= one->second.again_at) due.push_back(file);
  }
  for (auto const file : due) {
    if (under_way >= settling_max) return;
    auto& one = orphans_.known.at(file);
    auto const server = settler_of(file);
    if (!server) {
      one.again_at = now + wait_for_servers;
      continue;
    }
    proto::Mds_push push;
    push.mutable_settle_files()->add_files(file.value);
    send(tables_.servers.at(*server).connection, 0, push);
    one.again_at = now + one.pause;
    one.pause = std::min(one.pause * 2, pause_max);
    ++under_way;
  }
}

/// One of the servers that have replicas of the file. None: not all of them are there, and what the
/// missing ones have may be what nobody else has.
std::optional<Cs_id> Metadata_server::settler_of(File_id file) {
  std::vector<Cs_id> servers;
  {
    Rows rows(state_->database(),
              "SELECT DISTINCT cs FROM chunk JOIN replica ON replica.chunk = chunk.id"
              " WHERE file = ? AND replica.state <> 2 ORDER BY cs");
    rows.bind(1, file);
    while (rows.next()) servers.push_back(Cs_id{rows.u32(0)});
  }
  bool const has_replicas = !servers.empty();
  if (!has_replicas) {
    for (auto const& [cs, memory] : tables_.servers) servers.push_back(cs);
  }
  auto const away = std::erase_if(servers, [this](Cs_id cs) {
    auto const found = tables_.servers.find(cs);
    return found == tables_.servers.end() || found->second.state != "active" ||
           !found->second.connection;
  });
  if (servers.empty() || (has_replicas && away != 0)) return std::nullopt;
  return servers[random_.below(servers.size())];
}

}  // namespace pstorage::mds
