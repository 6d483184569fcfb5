// Chunk servers without room while the volume says on-full=wait: writes wait, whoever dies
// meanwhile, none fails, and all end when there is room again.
#include <algorithm>

#include "tests/sim/cluster_sim.h"
#include "tests/sim/sim_processes.h"

namespace pstorage::sim {
namespace {

constexpr std::uint64_t slack_bytes = 16u << 20;

}  // namespace

void Cluster_sim::full_disks() {
  Sim_random& random = world_.random();
  bool const opened = run_until(
      [&] {
        return std::any_of(clients_.begin(), clients_.end(),
                           [](auto const& client) { return client->has_volume(); });
      },
      std::chrono::seconds(20));
  if (!opened) return fail("nobody can open the volume");
  run_for(random.between(Duration{0}, std::chrono::seconds(2)));
  // One that has room is found, and the full ones leave the sets; else all wait. Whoever starts
  // again needs some room itself.
  bool const all = random.percent(70);
  bool const restarts = random.percent(50);
  for (std::size_t i = all ? 0 : 1; i < servers_.size(); ++i) {
    auto& disk = servers_[i]->disk;
    // The one gets further than the other: a set shrinks write by write.
    std::uint64_t const slack = restarts ? slack_bytes : random.below(4) * (64u << 10);
    disk.set_capacity(disk.used_bytes() + slack);
  }
  world_.write(Log_level::info, "FAULT full disks", {{"servers", servers_.size() - (all ? 0 : 1)}});
  Time_point const end =
      world_.now() + random.between(std::chrono::seconds(10), std::chrono::seconds(25));
  while (world_.now() < end && fault_.empty()) {
    run_for(std::chrono::milliseconds(500));
    if (restarts && random.percent(30)) stop_cs(*servers_[random.below(servers_.size())], false);
  }
  for (auto& server : servers_) server->disk.set_capacity(unlimited_bytes);
}

}  // namespace pstorage::sim
