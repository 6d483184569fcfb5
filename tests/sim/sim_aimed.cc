// Faults aimed at what random ones hardly ever meet: the moment between a promise and what it rests
// on.
#include <array>

#include "tests/sim/cluster_sim.h"
#include "tests/sim/sim_processes.h"

namespace pstorage::sim {

/// Each in one of twelve seeds, so that their planted bugs need not look through all.
void Cluster_sim::plan_targets(std::uint64_t seed) {
  plan_.stalled_deaths = seed % 12 == 1;
  plan_.late_reports = seed % 12 == 10;
  plan_.deserters = seed % 12 == 11;
  if (plan_.stalled_deaths) plan_.chunk_bytes = 256 << 10;
  if (plan_.late_reports) plan_.power_losses = true;
  if (plan_.late_reports) plan_.rot = false;
  if (plan_.deserters) plan_.session_timeout = std::chrono::seconds(3);
  if (plan_.deserters) plan_.fault_mean_ms = 1200;
  plan_.absences = seed % 12 == 4;
  if (plan_.absences) plan_.session_timeout = std::chrono::seconds(3);
  if (plan_.absences) plan_.settle_after = std::chrono::milliseconds(500 * (seed / 12 % 3));
  plan_.leaves = seed % 3 == 1;
}

/// Random faults hit the microseconds between a promise and what it rests on almost never: the next
/// answer of this kind that a chunk server gives is followed by its death, or by everybody's.
void Cluster_sim::aim() {
  Sim_random& random = world_.random();
  constexpr std::array targets{Operation::write, Operation::flush, Operation::control,
                               Operation::repair, Operation::zero};
  aim_ = Aim{.operation = targets[random.below(targets.size())],
             .length_min = random.percent(50) ? 0u : 68u << 10,
             .everybody = random.percent(50),
             .power = plan_.power_losses && random.percent(50),
             .delay = random.between(Duration{0}, std::chrono::microseconds(500)),
             .until = world_.now() + std::chrono::seconds(2)};
}

void Cluster_sim::sent(Sim_node const& from, Message const& message) {
  if (plan_.late_reports && !calm_ && !message.header.is_reply) delay_report(from, message);
  if (!aim_.has_value()) return;
  Aim const aim = *aim_;
  if (calm_ || world_.now() >= aim.until) return aim_.reset();
  if (!message.header.is_reply || message.header.operation != aim.operation) return;
  if (aim.operation == Operation::write && message.header.length < aim.length_min) return;
  for (auto& server : servers_) {
    if (&server->node != &from) continue;
    aim_.reset();
    // Later: the sender is in the middle of an event.
    return world_.queue().at(aim.delay, [this, aim, victim = server.get()] {
      if (calm_) return;
      if (!aim.everybody) return stop_cs(*victim, aim.power);
      aim.power ? power_off_everything() : kill_everything();
    });
  }
}

/// Nobody opens the volume while its last holder's session ends and a chunk server begins to settle
/// it; somebody may when it is at it.
void Cluster_sim::be_absent() {
  Sim_random& random = world_.random();
  for (auto& client : clients_) {
    if (!client->is_running()) continue;
    client->kill(random.percent(50));
    world_.queue().at(random.between(std::chrono::seconds(3), std::chrono::seconds(8)),
                      [&client] { client->start(); });
  }
}

/// Everybody's disks stall, and everybody dies before they go on: what was answered meanwhile must
/// not have waited for them.
void Cluster_sim::kill_while_disks_stall() {
  Duration const time =
      world_.random().between(std::chrono::milliseconds(3), std::chrono::milliseconds(40));
  world_.write(Log_level::info, "FAULT stalled disks", {});
  for (auto& server : servers_) server->disk.stall_until(world_.now() + time);
  world_.queue().at(time - std::chrono::milliseconds(1), [this] {
    if (!calm_) kill_everything();
  });
}

/// The MDS reads a report late; until then who is named in it has come back, and the others lose
/// their power.
void Cluster_sim::delay_report(Sim_node const& from, Message const& message) {
  proto::Mds_request request;
  if (message.header.operation != Operation::control || world_.now() < next_late_report_) return;
  if (!request.ParseFromArray(message.meta.data(), static_cast<int>(message.meta.size()))) return;
  if (!request.has_report_failed() || request.report_failed().chunks_size() == 0) return;
  std::set<std::uint32_t> const named(request.report_failed().chunks(0).failed().begin(),
                                      request.report_failed().chunks(0).failed().end());
  Sim_random& random = world_.random();
  next_late_report_ = world_.now() + std::chrono::seconds(3);
  Duration const time =
      random.between(std::chrono::milliseconds(700), std::chrono::milliseconds(1800));
  world_.write(Log_level::info, "FAULT late report", {});
  for (auto& mds : mds_) world_.cut(from, mds->node, world_.now() + time);
  for (auto& server : servers_)
    if (named.contains(server->id.value))
      world_.queue().at(
          random.between(std::chrono::milliseconds(1), std::chrono::milliseconds(300)),
          [this, back = server.get()] { start_cs(*back); });
  world_.queue().at(random.between(time / 2, time), [this, named] {
    if (calm_) return;
    for (auto& server : servers_)
      if (!named.contains(server->id.value)) stop_cs(*server, true);
  });
}

/// The holder of the volume cannot hear the MDS but reaches every chunk server, while somebody
/// takes the volume over by force: only the seal stops it.
void Cluster_sim::isolate_client() {
  std::size_t holder = 0;
  for (std::size_t i = 0; i < clients_.size(); ++i)
    if (clients_[i]->has_volume()) holder = i;
  Sim_node& client = *client_nodes_[holder];
  for (std::size_t i = 0; i < clients_.size(); ++i)
    if (i != holder && clients_[i]->is_running()) clients_[i]->steal_once();
  Time_point const until =
      world_.now() + world_.random().between(std::chrono::seconds(plan_.sharing ? 8 : 1),
                                             std::chrono::seconds(plan_.sharing ? 14 : 12));
  world_.write(Log_level::info, "FAULT isolated from the MDS", {{"node", client.name()}});
  for (auto& mds : mds_) {
    world_.cut(client, mds->node, until);
    world_.cut(mds->node, client, until);
  }
}

/// The holder dies while some of its servers cannot hear it: they differ in what it wrote last.
void Cluster_sim::desert() {
  Sim_random& random = world_.random();
  std::size_t holder = 0;
  for (std::size_t i = 0; i < clients_.size(); ++i)
    if (clients_[i]->has_volume() && !clients_[i]->is_shared()) holder = i;
  Time_point const until = world_.now() + std::chrono::milliseconds(60);
  for (auto& server : servers_)
    if (random.percent(50)) world_.cut(*client_nodes_[holder], server->node, until);
  world_.queue().at(std::chrono::milliseconds(40), [this, holder] {
    if (calm_ || !clients_[holder]->is_running()) return;
    clients_[holder]->kill(false);
    restart_later([this, holder] { clients_[holder]->start(); });
  });
}

}  // namespace pstorage::sim
