// Chunk servers without room while the volume says on-full=wait: writes wait, whoever dies
// meanwhile, none fails, and all end when there is room again.
#include <algorithm>

#include "tests/sim/cluster_sim.h"
#include "tests/sim/sim_processes.h"

namespace pstorage::sim {
namespace {

constexpr std::uint64_t slack_bytes = 1u << 20;

}  // namespace

void Cluster_sim::full_disks() {
  Sim_random& random = world_.random();
  auto const any_client = [&](auto const& condition) {
    return std::any_of(clients_.begin(), clients_.end(),
                       [&](auto const& client) { return condition(*client); });
  };
  bool const opened =
      run_until([&] { return any_client([](Sim_client& one) { return one.has_volume(); }); },
                std::chrono::seconds(20));
  if (!opened) return fail("nobody can open the volume");
  run_for(random.between(Duration{0}, std::chrono::seconds(2)));
  // One that has room is found, and the full ones leave the sets; else all wait.
  bool const all = random.percent(70);
  for (std::size_t i = all ? 0 : 1; i < servers_.size(); ++i)
    servers_[i]->disk.set_capacity(servers_[i]->disk.used_bytes() +
                                   (random.percent(50) ? slack_bytes : 0));
  world_.write(Log_level::info, "FAULT full disks", {{"servers", servers_.size() - (all ? 0 : 1)}});
  Time_point const end =
      world_.now() + random.between(std::chrono::seconds(10), std::chrono::seconds(25));
  bool waited = false;
  while (world_.now() < end && fault_.empty()) {
    run_for(std::chrono::milliseconds(500));
    waited = waited || any_client([](Sim_client& one) {
               return one.waiting_reason().find(" room") != std::string::npos;
             });
    if (random.percent(10)) stop_cs(*servers_[random.below(servers_.size())], false);
  }
  if (fault_.empty() && all && !waited) fail("no write has waited for room");
  for (auto& server : servers_) server->disk.set_capacity(unlimited_bytes);
}

}  // namespace pstorage::sim
