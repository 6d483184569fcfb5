#include "tests/sim/cluster_sim.h"

#include <algorithm>
#include <utility>

#include "tests/sim/sim_processes.h"

namespace pstorage::sim {
namespace {

constexpr Duration progress_patience = std::chrono::seconds(60);
// A sync that was under way when its server was taken out of the set leaves a replica behind, which
// the next inventory finds: one every ten minutes.
constexpr Duration orphan_patience = std::chrono::minutes(11);

}  // namespace

Cluster_plan draw_plan(Sim_random& random) {
  Cluster_plan plan;
  plan.servers = 3 + static_cast<std::uint32_t>(random.below(2));
  plan.norm = random.percent(80) ? 3 : 2;
  plan.min = 1 + static_cast<std::uint32_t>(random.below(2));
  plan.chunks = 2 + static_cast<std::uint32_t>(random.below(3));
  plan.power_losses = random.percent(50);
  // Rot and lost power together could take every copy of a block: nothing to check then.
  plan.rot = !plan.power_losses && random.percent(30);
  plan.steals = random.percent(30);
  plan.drift = random.percent(30);
  plan.fault_mean_ms = random.percent(50) ? 400 : 1200;
  // Writes above 64 KiB take another way through the journal.
  if (random.percent(30)) plan.chunk_bytes = 256 << 10;
  plan.healing = random.percent(40);
  if (plan.healing) plan.servers = 5;
  // More take-overs than with 10 s, which leave more time for what a client must not miss.
  if (random.percent(50)) plan.session_timeout = std::chrono::seconds(3);
  plan.slow_disk = random.percent(10);
  if (plan.slow_disk) plan.healing = plan.rot = plan.steals = plan.power_losses = false;
  return plan;
}

Cluster_sim::Cluster_sim(std::uint64_t seed, bool verbose)
    : world_(seed, {}),
      plan_(draw_plan(world_.random())),
      ledger_(std::size_t{plan_.chunks} * plan_.chunk_bytes / block_bytes) {
  plan_.sharing = seed % 4 == 3 && !plan_.slow_disk;
  if (plan_.sharing) plan_.clients = 3;
  plan_.caching = seed % 3 == 0 && !plan_.slow_disk;
  plan_.full_disks = seed % 12 == 5 && !plan_.slow_disk;
  plan_.compares = seed % 5 == 2;
  if (!plan_.slow_disk) plan_targets(seed);
  world_.set_verbose(verbose);
  ledger_.verbose = verbose;
  world_.set_tap([this](Sim_node const& from, Message const& message) { sent(from, message); });
}

Cluster_sim::~Cluster_sim() {
  clients_.clear();
  tool_.reset();
  for (auto& server : servers_)
    if (server->is_running()) server->stop(true);
  for (auto& mds : mds_)
    if (mds->is_running()) mds->stop(true);
}

void Cluster_sim::fail(std::string const& what) {
  if (fault_.empty()) fault_ = what;
}

void Cluster_sim::run_for(Duration time) { world_.queue().run_until(world_.now() + time); }

bool Cluster_sim::run_until(std::function<bool()> const& condition, Duration patience) {
  Time_point const end = world_.now() + patience;
  while (!condition()) {
    if (world_.now() >= end) return false;
    run_for(std::chrono::milliseconds(20));
  }
  return true;
}

// ------------------------------------------------------------------ beginning

proto::Mds_reply Cluster_sim::ask(proto::Mds_request request) {
  std::optional<Outcome<proto::Mds_reply>> answer;
  tool_->node.run([&] {
    tool_->session->call(std::move(request), std::chrono::seconds(30),
                         [&](Outcome<proto::Mds_reply> reply) { answer = std::move(reply); });
  });
  bool const came = run_until([&] { return answer.has_value(); }, std::chrono::seconds(60));
  proto::Mds_reply reply;
  if (came && answer->has_value()) return std::move(*answer).value();
  reply.set_status(static_cast<std::uint32_t>(Errc::unavailable));
  reply.set_text(came ? answer->error().text : "no answer");
  return reply;
}

bool Cluster_sim::make_cluster() {
  tool_ = std::make_unique<Tool>(world_, mds_addresses());
  for (std::uint32_t i = 1; i <= plan_.metadata_servers; ++i)
    if (!make_metadata_server(i)) return false;
  for (std::size_t i = 0; i < plan_.servers; ++i)
    if (!make_chunk_server(i)) return false;
  return make_volume();
}

/// The first one makes the cluster; the others join it, as make-mds does.
bool Cluster_sim::make_metadata_server(std::uint32_t number) {
  auto const address = Mds_host::address_of(number, 2510).text();
  mds::raft::Configuration first;
  if (number == 1) {
    first.add({{number}, mds::raft::Member_kind::voter, address});
  } else {
    proto::Mds_request request;
    request.mutable_create_mds()->set_member(number);
    request.mutable_create_mds()->set_address(address);
    if (auto const reply = ask(std::move(request)); reply.status() != 0) {
      fail("no id for a metadata server: " + reply.text());
      return false;
    }
  }
  mds_.push_back(std::make_unique<Mds_host>(world_, number, std::move(first), plan_));
  if (auto why = mds_.back()->start(); !why.empty()) {
    fail("mdsd does not start: " + why);
    return false;
  }
  bool const votes = run_until(
      [&] {
        auto const& now = mds_.front()->entries->configuration();
        return now.voters() == number && mds_.back()->entries->configuration() == now;
      },
      std::chrono::seconds(20));
  if (!votes) fail("a new metadata server does not become a voter");
  return votes;
}

bool Cluster_sim::make_chunk_server(std::size_t index) {
  Host_id const host{0x100 + index};
  proto::Mds_request request;
  auto& create = *request.mutable_create_cs();
  create.set_host_id(host.value);
  create.set_host_name("host" + std::to_string(index));
  auto const reply = ask(std::move(request));
  if (reply.status() != 0) {
    fail("no id for a chunk server: " + reply.text());
    return false;
  }
  Cs_id const id{reply.created_cs().cs()};
  servers_.push_back(std::make_unique<Cs_host>(world_, id, host, mds_addresses()));
  Cs_host& server = *servers_.back();
  std::string why = server.make_repository();
  if (why.empty()) why = server.start();
  if (!why.empty()) fail("csd does not start: " + why);
  return why.empty();
}

bool Cluster_sim::make_volume() {
  run_for(std::chrono::seconds(2));  // everybody registers
  proto::Mds_request request;
  auto& create = *request.mutable_create();
  create.set_path("/volumes/v");
  create.set_parents(true);
  create.set_size(std::uint64_t{plan_.chunks} * plan_.chunk_bytes);
  auto& attributes = *create.mutable_attributes();
  attributes.set_replicas_norm(plan_.norm);
  attributes.set_replicas_min(plan_.min);
  attributes.set_chunk_size(plan_.chunk_bytes);
  attributes.set_client_ssd_cache(plan_.caching);
  if (plan_.full_disks) attributes.set_on_full("wait");
  auto const reply = ask(std::move(request));
  if (reply.status() != 0) fail("no volume: " + reply.text());
  return reply.status() == 0;
}

Run_result Cluster_sim::run() {
  if (make_cluster()) {
    for (std::uint32_t i = 0; i < plan_.clients; ++i) {
      client_nodes_.push_back(
          &world_.add_node("client" + std::to_string(i), Role::client, {0x200 + i}));
      Sim_client_options options;
      options.rot_allowed = plan_.rot;
      options.steals = plan_.steals && i == 1;
      options.shares = plan_.sharing;
      options.caches = plan_.caching;
      options.compares = plan_.compares;
      options.chunk_bytes = plan_.chunk_bytes;
      clients_.push_back(std::make_unique<Sim_client>(world_, *client_nodes_.back(), ledger_,
                                                      mds_addresses(), options));
      clients_.back()->start();
    }
    if (plan_.drift)
      for (auto& server : servers_)
        server->node.set_clock(0.95 + 0.001 * static_cast<double>(world_.random().below(100)));
    if (plan_.healing) begin_healing();
    if (plan_.slow_disk)
      slow_disk();
    else if (plan_.full_disks)
      full_disks();
    else
      chaos();
    heal();
    settle();
  }
  return {.fault = fault_,
          .hash = world_.hash(),
          .events = world_.events(),
          .operations = ledger_.operations,
          .virtual_seconds = static_cast<double>(world_.now().since_start.count()) / 1e9};
}

// ------------------------------------------------------------------ chaos

void Cluster_sim::restart_later(std::function<void()> start) {
  Duration const delay =
      world_.random().percent(70)
          ? world_.random().between(std::chrono::milliseconds(50), std::chrono::milliseconds(1500))
          : world_.random().between(std::chrono::milliseconds(1500), std::chrono::seconds(6));
  world_.queue().at(delay, std::move(start));
}

std::vector<Address> Cluster_sim::mds_addresses() const {
  std::vector<Address> all;
  for (std::uint32_t i = 1; i <= plan_.metadata_servers; ++i)
    all.push_back(Mds_host::address_of(i));
  return all;
}

/// Most often the one that leads: what befalls the others is hardly noticed.
Cluster_sim::Mds_host& Cluster_sim::some_mds() {
  if (world_.random().percent(70))
    for (auto& mds : mds_)
      if (mds->leads()) return *mds;
  return *mds_[world_.random().below(mds_.size())];
}

void Cluster_sim::start_mds(Mds_host& host) {
  if (host.is_running()) return;
  if (auto why = host.start(); !why.empty()) fail("mdsd does not start again: " + why);
}

void Cluster_sim::start_cs(Cs_host& host) {
  if (host.is_running()) return;
  if (auto why = host.start(); !why.empty()) fail(host.node.name() + " does not start: " + why);
}

void Cluster_sim::stop_mds(Mds_host& host, bool power) {
  if (!host.is_running()) return;
  world_.write(Log_level::info, power ? "FAULT power loss" : "FAULT kill",
               {{"node", host.node.name()}});
  host.stop(power);
  restart_later([this, &host] { start_mds(host); });
}

void Cluster_sim::stop_cs(Cs_host& host, bool power) {
  if (!host.is_running()) return;
  world_.write(Log_level::info, power ? "FAULT power loss" : "FAULT kill",
               {{"node", host.node.name()}});
  // It may hold the only up-to-date replica of some chunk.
  Moment const now = world_.now().since_start.count();
  power ? ledger_.power_lost(now) : ledger_.server_left(now);
  host.stop(power);
  restart_later([this, &host] { start_cs(host); });
}

void Cluster_sim::chaos() {
  Time_point const end = world_.now() + plan_.chaos;
  while (world_.now() < end && fault_.empty()) {
    run_for(std::chrono::milliseconds(1 + world_.random().below(2 * plan_.fault_mean_ms)));
    one_fault();
  }
}

void Cluster_sim::one_fault() {
  Sim_random& random = world_.random();
  if (plan_.healing && random.percent(15)) return administer();
  // A reader that nobody hears for longer than its session must not believe what it knows.
  if (plan_.sharing && random.percent(8)) return isolate_client();
  if (plan_.stalled_deaths && random.percent(20)) return kill_while_disks_stall();
  if (plan_.deserters && random.percent(50)) return desert();
  if (plan_.absences && random.percent(15)) return be_absent();
  Cs_host& server = *servers_[random.below(servers_.size())];
  auto const dice = random.below(100);
  if (dice < 22) return stop_cs(server, plan_.power_losses && random.percent(50));
  if (dice < 28) return stop_mds(some_mds(), plan_.power_losses && random.percent(50));
  if (dice < 36) {
    auto const victim = random.below(clients_.size());
    Sim_client& client = *clients_[victim];
    if (!client.is_running()) return;
    client.kill(random.percent(50));
    return restart_later([&client] { client.start(); });
  }
  if (dice < 50) return pause_somebody();
  if (dice < 54) return isolate_client();
  if (dice < 68) return partition();
  if (dice < 84) return world_.break_connection();
  if (dice < 88 && plan_.power_losses) return power_off_everything();
  if (dice < 96) return aim();
  if (plan_.rot) rot_something();
}

void Cluster_sim::kill_everything() {
  for (auto& mds : mds_) stop_mds(*mds, false);
  for (auto& server : servers_) stop_cs(*server, false);
}

void Cluster_sim::power_off_everything() {
  world_.mix(0xdead);
  Moment const when = world_.now().since_start.count();
  ledger_.power_lost(when);
  for (auto& mds : mds_) stop_mds(*mds, true);
  for (auto& server : servers_) stop_cs(*server, true);
  if (world_.random().percent(50)) return;
  for (auto& client : clients_)
    if (client->is_running()) {
      client->kill(true);
      restart_later([&client] { client->start(); });
    }
}

void Cluster_sim::pause_somebody() {
  Sim_random& random = world_.random();
  Duration const time =
      random.percent(60)
          ? random.between(std::chrono::milliseconds(50), std::chrono::milliseconds(1500))
          : random.between(std::chrono::milliseconds(1500), std::chrono::seconds(13));
  auto const who = random.below(servers_.size() + clients_.size() + 1);
  Sim_node* node = nullptr;
  if (who < servers_.size())
    node = &servers_[who]->node;
  else if (who < servers_.size() + clients_.size())
    node = client_nodes_[who - servers_.size()];
  else
    node = &some_mds().node;
  world_.write(Log_level::info, "FAULT pause",
               {{"node", node->name()}, {"ms", time / std::chrono::milliseconds(1)}});
  if (node->is_up()) node->pause_until(world_.now() + time);
}

void Cluster_sim::partition() {
  Sim_random& random = world_.random();
  std::vector<Sim_node*> nodes;
  for (auto& mds : mds_) nodes.push_back(&mds->node);
  for (auto& server : servers_) nodes.push_back(&server->node);
  for (auto* client : client_nodes_) nodes.push_back(client);
  bool const one_way = random.percent(40);
  Time_point const until =
      world_.now() + random.between(std::chrono::milliseconds(50), std::chrono::seconds(7));
  if (random.percent(50)) {
    // One node from all others.
    Sim_node* alone = nodes[random.below(nodes.size())];
    for (auto* other : nodes) {
      if (other == alone) continue;
      world_.cut(*alone, *other, until);
      if (!one_way) world_.cut(*other, *alone, until);
    }
  } else {
    // Two sides, or a few pairs: not everybody need see the same network.
    unsigned const share = 20 + static_cast<unsigned>(random.below(60));
    for (std::size_t a = 0; a < nodes.size(); ++a)
      for (std::size_t b = a + 1; b < nodes.size(); ++b) {
        if (!random.percent(share)) continue;
        world_.cut(*nodes[a], *nodes[b], until);
        if (!one_way) world_.cut(*nodes[b], *nodes[a], until);
      }
  }
}

void Cluster_sim::rot_something() {
  // Always the same server: with rot on all of them nobody could promise anything.
  if (servers_[0]->flip_data(world_.random())) world_.mix(0xb17);
}

void Cluster_sim::heal() {
  if (!fault_.empty()) return;
  calm_ = true;
  world_.heal();
  run_for(std::chrono::seconds(15));  // pauses and restarts run out
  world_.heal();
  for (auto& mds : mds_) start_mds(*mds);
  for (auto& server : servers_) start_cs(*server);
  for (auto& client : clients_)
    if (!client->is_running()) client->start();
}

// ------------------------------------------------------------------ the end

void Cluster_sim::settle() {
  if (!fault_.empty()) return;
  run_for(std::chrono::seconds(5));
  for (auto& client : clients_) client->quiesce();
  bool const quiet = run_until(
      [&] {
        return std::all_of(clients_.begin(), clients_.end(),
                           [](auto const& client) { return client->is_quiet(); });
      },
      progress_patience);
  if (!quiet) {
    std::string why;
    for (auto& client : clients_)
      if (!client->is_quiet()) why += " " + client->waiting_reason();
    return fail("no progress after healing: requests are not answered:" + why + tell_map());
  }
  if (!run_until([&] { return told_ == 0; }, progress_patience))
    return fail("no progress after healing: the administrator gets no answer");
  if (!run_until([&] { return all_in_sync(); }, progress_patience) && fault_.empty())
    return fail("no progress after healing: replicas are not brought up to date" + tell_map());
  if (fault_.empty() && plan_.leaves) leave();
  if (fault_.empty()) read_back();
  if (fault_.empty()) compare_replicas();
  if (fault_.empty() && !run_until([&] { return !has_orphans(); }, orphan_patience))
    fail("chunk servers keep replicas that nobody knows");
  if (auto broken = ledger_.check(); !broken.empty() && fault_.empty()) fail(broken);
}

std::string Cluster_sim::tell_map() {
  proto::Mds_request lookup;
  lookup.mutable_lookup()->set_path("/volumes/v");
  std::string text = "; " + ask(std::move(lookup)).file().ShortDebugString();
  if (auto const map = tool_->fetch_map(*this); map.has_value())
    for (auto const& chunk : map->chunks()) text += "; " + chunk.ShortDebugString();
  return text;
}

bool Cluster_sim::all_in_sync() {
  auto const map = tool_->fetch_map(*this);
  if (!map.has_value()) return false;
  return std::all_of(map->chunks().begin(), map->chunks().end(), [&](auto const& chunk) {
    auto const in_sync = std::count_if(
        chunk.replicas().begin(), chunk.replicas().end(),
        [](auto const& replica) { return replica.state() == proto::REPLICA_IN_SYNC; });
    bool const stays_put =
        std::all_of(chunk.replicas().begin(), chunk.replicas().end(),
                    [&](auto const& replica) { return !released_.contains(replica.cs()); });
    return stays_put && in_sync == static_cast<std::ptrdiff_t>(plan_.norm) &&
           in_sync == chunk.replicas_size();
  });
}

void Cluster_sim::read_back() {
  for (auto& client : clients_) {
    client->close();
    run_for(std::chrono::milliseconds(500));
  }
  for (auto& client : clients_)
    if (client->is_running()) client->kill(true);
  // A fresh client sees what is there, after the last take-over.
  Sim_node& node = world_.add_node("reader", Role::client, {0x300});
  Sim_client reader(world_, node, ledger_, mds_addresses(),
                    {.depth = 4, .rot_allowed = plan_.rot, .steals = true});
  reader.start();
  reader.read_only();
  bool const done =
      run_until([&] { return reader.has_read_all() && reader.is_quiet(); }, progress_patience);
  if (!done) fail("the volume cannot be read at the end: " + reader.waiting_reason());
  run_until([&] { return all_in_sync(); }, progress_patience);
  reader.close();
  run_for(std::chrono::milliseconds(500));
}

}  // namespace pstorage::sim
