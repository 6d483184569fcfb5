// A disk that becomes slow or hangs while nothing else goes wrong: writers must get rid of it
// within seconds, never below replicas_min, and it must come back by itself, once.
#include <algorithm>

#include "tests/sim/cluster_sim.h"
#include "tests/sim/sim_processes.h"

namespace pstorage::sim {
namespace {

// Until a disk counts as slow and its replicas are dropped; then flushes are as quick as ever.
constexpr Duration notice = std::chrono::seconds(7);
constexpr Duration flush_max = std::chrono::seconds(1);
constexpr std::uint64_t episode_ms = 2500;
constexpr Duration return_patience = std::chrono::seconds(200);

}  // namespace

void Cluster_sim::slow_disk() {
  Sim_random& random = world_.random();
  bool const opened = run_until(
      [&] {
        return std::any_of(clients_.begin(), clients_.end(),
                           [](auto const& client) { return client->has_volume(); });
      },
      std::chrono::seconds(20));
  if (!opened) return fail("nobody can open the volume");
  run_for(std::chrono::seconds(3));
  Cs_host& victim = *servers_[random.below(servers_.size())];
  Duration const time = random.between(std::chrono::seconds(15), std::chrono::seconds(35));
  Time_point const begin = world_.now();
  bool const hangs = random.percent(40);
  world_.write(Log_level::info, hangs ? "FAULT hung disk" : "FAULT slow disk",
               {{"node", victim.node.name()}});
  if (hangs)
    victim.disk.stall_until(begin + time);
  else
    victim.disk.set_slowness(
        random.between(std::chrono::milliseconds(1200), std::chrono::milliseconds(3000)));
  while (world_.now() < begin + time && fault_.empty()) {
    run_for(std::chrono::milliseconds(500));
    check_minimum();
  }
  victim.disk.set_slowness({});
  victim.disk.stall_until({});
  bool const may_drop = plan_.norm > plan_.min;
  for (auto const& client : clients_) {
    auto const slowest = client->slowest_flush((begin + notice).since_start.count(),
                                               (begin + time).since_start.count());
    if (may_drop && slowest > flush_max)
      fail("a flush waited " + std::to_string(slowest / std::chrono::milliseconds(1)) +
           " ms for a disk that had long been slow");
  }
  if (fault_.empty() && !run_until([&] { return all_in_sync(); }, return_patience))
    fail("a disk that is quick again is not used again");
  if (fault_.empty()) check_events();
}

/// Nothing but the slow disk has happened: no reason to have fewer than the minimum.
void Cluster_sim::check_minimum() {
  auto const map = tool_->fetch_map(*this);
  if (!map.has_value()) return;
  for (auto const& chunk : map->chunks()) {
    auto const in_sync = std::count_if(
        chunk.replicas().begin(), chunk.replicas().end(),
        [](auto const& replica) { return replica.state() == proto::REPLICA_IN_SYNC; });
    if (in_sync < static_cast<std::ptrdiff_t>(plan_.min))
      fail("a slow replica was dropped although writes need it");
  }
}

/// How often it was dropped: again and again would be worse than slow.
void Cluster_sim::check_events() {
  proto::Mds_request request;
  request.mutable_get_events();
  auto const reply = ask(std::move(request));
  // Its chunks one after the other, as they are written: one episode.
  int episodes = 0;
  std::uint64_t last_ms = 0;
  for (auto const& event : reply.events().events()) {
    if (event.text().find("far slower than the other replicas") == std::string::npos) continue;
    if (event.time_ms() > last_ms + episode_ms) ++episodes;
    last_ms = event.time_ms();
  }
  if (episodes > 2) fail("a slow server was dropped " + std::to_string(episodes) + " times");
}

}  // namespace pstorage::sim
