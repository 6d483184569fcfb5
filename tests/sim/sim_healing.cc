// The simulated administrator: removes chunk servers, thinks better of it, changes replicas=, and
// looks at the end whether anything was left lying about.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "core/assert.h"
#include "tests/sim/cluster_sim.h"
#include "tests/sim/sim_processes.h"

namespace pstorage::sim {
namespace {

constexpr std::size_t servers_kept = 3;  // so that replicas=3 stays possible
// For the session's end, the settling, which a fault may have kept from being asked for again, and
// the repair.
constexpr Duration leave_patience = std::chrono::seconds(150);

}  // namespace

void Cluster_sim::tell(proto::Mds_request request, std::function<void(bool accepted)> done) {
  ++told_;
  tool_->node.run([&] {
    // Without end: whether it was done has to be known.
    tool_->session->call(std::move(request), Duration{0},
                         [this, done = std::move(done)](Outcome<proto::Mds_reply> const& reply) {
                           --told_;
                           if (done) done(reply.has_value());
                         });
  });
}

void Cluster_sim::begin_healing() {
  proto::Mds_request request;
  request.mutable_set_config()->set_name("mds.wd.offline_tout");
  request.mutable_set_config()->set_value(std::to_string(1000 + world_.random().below(5000)));
  tell(std::move(request), nullptr);
}

void Cluster_sim::administer() {
  world_.random().percent(50) ? release_somebody() : change_replicas();
}

void Cluster_sim::release_somebody() {
  Sim_random& random = world_.random();
  bool const cancels = !released_.empty() && random.percent(40);
  if (!cancels && servers_.size() - released_.size() <= servers_kept) return;
  auto const id = cancels ? *released_.begin() : servers_[random.below(servers_.size())]->id.value;
  if (!cancels && !released_.insert(id).second) return;
  world_.write(Log_level::info, cancels ? "ADMIN rm-cs --cancel" : "ADMIN rm-cs", {{"cs", id}});
  proto::Mds_request request;
  request.mutable_release_cs()->set_cs(id);
  request.mutable_release_cs()->set_cancel(cancels);
  tell(std::move(request), [this, id, cancels](bool accepted) {
    // A refused release changes nothing; a refused cancellation: it is gone, or never was asked.
    if (cancels == accepted) released_.erase(id);
  });
}

void Cluster_sim::change_replicas() {
  if (told_ != 0) return;  // of two that are under way at once any may be the last
  Sim_random& random = world_.random();
  // Rot in one of two replicas while the other is away could take the only good copy.
  std::uint32_t const lowest = plan_.rot ? 2 : 1;
  auto const norm = lowest + static_cast<std::uint32_t>(random.below(4 - lowest));
  set_replicas(norm, 1 + static_cast<std::uint32_t>(random.below(std::min(norm, 2u))));
}

void Cluster_sim::set_replicas(std::uint32_t norm, std::uint32_t min) {
  world_.write(Log_level::info, "ADMIN set-attr", {{"norm", norm}, {"min", min}});
  if (norm < plan_.norm) ledger_.server_left(world_.now().since_start.count());
  proto::Mds_request request;
  auto& command = *request.mutable_set_attributes();
  command.set_path("/volumes/v");
  command.mutable_attributes()->set_replicas_norm(norm);
  command.mutable_attributes()->set_replicas_min(min);
  tell(std::move(request), [this, norm](bool accepted) {
    if (accepted) plan_.norm = norm;
  });
}

/// The users die and do not come back; the administrator wants another number of replicas.
void Cluster_sim::leave() {
  for (auto& client : clients_)
    if (client->is_running()) client->kill(world_.random().percent(50));
  set_replicas(plan_.norm == 3 ? 2 : 3, 1);
  bool const healed = run_until([&] { return told_ == 0 && all_in_sync(); }, leave_patience);
  if (!healed && fault_.empty())
    fail("a volume that nobody opens any more is not repaired" + tell_map());
}

/// Has any server a chunk file that the map does not place there? Removed ones keep what they have.
bool Cluster_sim::has_orphans() {
  auto const map = tool_->fetch_map(*this);
  if (!map.has_value()) return true;
  return std::any_of(servers_.begin(), servers_.end(), [&](auto const& server) {
    if (!server->is_running() || released_.contains(server->id.value)) return false;
    auto const& names = server->server->store().names();
    return std::any_of(names.begin(), names.end(), [&](Chunk_id id) {
      return std::none_of(map->chunks().begin(), map->chunks().end(), [&](auto const& chunk) {
        return chunk.chunk() == id.value &&
               std::any_of(chunk.replicas().begin(), chunk.replicas().end(),
                           [&](auto const& one) { return one.cs() == server->id.value; });
      });
    });
  });
}

void Cluster_sim::compare_replicas() {
  if (plan_.rot) return;  // a rotten block is only found, and healed, when it is read there
  auto const map = tool_->fetch_map(*this);
  if (!map.has_value()) return fail("the map cannot be read");
  for (auto const& chunk : map->chunks()) {
    std::optional<std::vector<Block_record>> first;
    for (auto const& replica : chunk.replicas()) {
      Cs_host* host = nullptr;
      for (auto& server : servers_)
        if (server->id.value == replica.cs()) host = server.get();
      PS_ASSERT(host != nullptr);
      auto const table = tool_->fetch_table(*this, *host, chunk, plan_.chunk_bytes);
      if (!table.has_value())
        return fail("cs " + std::to_string(replica.cs()) + " does not show chunk " +
                    std::to_string(chunk.chunk()));
      if (!first.has_value()) first = table;
      for (std::size_t i = 0; i < table->size(); ++i)
        if ((*table)[i].stamp != (*first)[i].stamp || (*table)[i].crc != (*first)[i].crc ||
            ((*table)[i].flags & block_corrupt) != 0)
          return fail("replicas of chunk " + std::to_string(chunk.chunk()) + " differ at block " +
                      std::to_string(i));
    }
  }
}

}  // namespace pstorage::sim
