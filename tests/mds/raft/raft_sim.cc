#include "tests/mds/raft/raft_sim.h"

#include <algorithm>
#include <cstdio>

namespace pstorage::mds::raft {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration faults_last = seconds(10);
constexpr Duration healing_lasts = seconds(5);
constexpr Duration tick_every = milliseconds(10);

Sim_plan make_plan(sim::Sim_random& random) {
  Sim_plan plan;
  plan.voters = random.percent(50) ? 3 : 5;
  plan.is_datagram = random.percent(50);
  plan.loss_percent = random.percent(50) ? 0 : static_cast<unsigned>(random.below(15));
  plan.repeat_percent = random.percent(50) ? 0 : static_cast<unsigned>(random.below(10));
  plan.latency_max = milliseconds(1 + random.below(20));
  plan.sync_max = milliseconds(1 + random.below(random.percent(30) ? 40 : 5));
  plan.snapshot_every = random.percent(50) ? 10 : 0;
  plan.has_changes = random.percent(40);
  plan.has_drift = random.percent(50);
  plan.fault_percent = static_cast<unsigned>(random.below(60));
  plan.strike_percent = random.percent(50) ? 0 : static_cast<unsigned>(1 + random.below(20));
  plan.late_percent = random.percent(50) ? 0 : static_cast<unsigned>(1 + random.below(10));
  plan.clients = 1 + static_cast<unsigned>(random.below(5));
  plan.append_bytes_max = random.percent(50) ? 1u << 20 : 1;
  return plan;
}

}  // namespace

Raft_sim::Raft_sim(std::uint64_t seed, bool is_verbose)
    : seed_(seed), is_verbose_(is_verbose), random_(seed), plan_(make_plan(random_)) {}

void Raft_sim::mix(std::uint64_t value) {
  auto const now = static_cast<std::uint64_t>(queue_.now().since_start.count());
  hash_ = (hash_ ^ value ^ now) * 0x100000001b3ULL;
}

void Raft_sim::trace(Member_id member, std::string const& what) {
  mix(member.value * 1000 + what.size());
  if (!is_verbose_) return;
  std::printf("%10.6f member %llu: %s\n",
              static_cast<double>(queue_.now().since_start.count()) / 1e9,
              static_cast<unsigned long long>(member.value), what.c_str());
}

void Raft_sim::add_process(Member_id id, Configuration first) {
  Raft_process::Options options;
  options.core.id = id;
  options.core.heartbeat_ticks = 2;
  options.core.append_bytes_max = plan_.append_bytes_max;
  options.snapshot_every = plan_.snapshot_every;
  options.sync_time = random_.between(std::chrono::microseconds(100), plan_.sync_max);
  options.log.segment_bytes = 64u << 10;
  options.log.reserve_bytes = 8u << 10;
  options.log.first = std::move(first);
  options.log.member = id;
  Process_host& host = *this;
  auto process = std::make_unique<Raft_process>(queue_, random_, checker_, host, options);
  process->start();
  processes_[id] = std::move(process);
  auto const drift = plan_.has_drift ? static_cast<double>(random_.below(400)) / 1000 - 0.2 : 0;
  schedule_tick(id, 1 + drift);
}

void Raft_sim::schedule_tick(Member_id id, double rate) {
  auto const delay = static_cast<double>(tick_every / Duration(1)) * rate;
  queue_.at(Duration(static_cast<Duration::rep>(delay)), [this, id, rate] {
    auto& process = *processes_.at(id);
    if (Duration left{}; process.is_up() && !is_paused(id, left)) {
      mix(id.value);
      process.tick();
    }
    schedule_tick(id, rate);
  });
}

Raft_process* Raft_sim::leader() {
  Raft_process* found = nullptr;
  for (auto& [id, process] : processes_) {
    if (!process->is_up() || !process->core().is_leader()) continue;
    if (found == nullptr || process->core().term() > found->core().term()) found = process.get();
  }
  return found;
}

Raft_process* Raft_sim::any_up() {
  std::vector<Raft_process*> up;
  for (auto& [id, process] : processes_) {
    if (process->is_up()) up.push_back(process.get());
  }
  return up.empty() ? nullptr : up[random_.below(up.size())];
}

Run_result Raft_sim::run() {
  Configuration first;
  for (; next_member_ <= plan_.voters; ++next_member_) {
    first.add({Member_id{next_member_}, Member_kind::voter, ""});
  }
  for (auto const& member : first.members) add_process(member.id, first);
  clients_.resize(plan_.clients);
  for (std::size_t i = 0; i < clients_.size(); ++i) {
    queue_.at(milliseconds(1), [this, i] { client_turn(i); });
  }
  queue_.at(milliseconds(500), [this] { nemesis(); });
  Time_point const end = queue_.now() + faults_last;
  while (queue_.now() < end && checker_.fault().empty()) queue_.step();
  if (checker_.fault().empty()) heal_and_check();
  return {.fault = checker_.fault(),
          .hash = hash_,
          .operations = operations_,
          .virtual_seconds = static_cast<double>(queue_.now().since_start / seconds(1))};
}

void Raft_sim::heal_and_check() {
  is_calm_ = true;
  cuts_.clear();
  late_.clear();
  paused_.clear();
  for (auto& [id, process] : processes_) {
    process->disk().stall_until(queue_.now());
    process->disk().set_capacity(sim::unlimited_bytes);
    if (!process->is_up() && !gone_.contains(id)) process->start();
  }
  Time_point const end = queue_.now() + healing_lasts;
  auto const before = acknowledged_;
  bool is_done = false;
  while (!is_done && queue_.now() < end && checker_.fault().empty()) {
    auto const slice = queue_.now() + milliseconds(50);
    while (queue_.now() < slice && checker_.fault().empty()) queue_.step();
    is_done = acknowledged_ > before + 3 && laggard().empty();
  }
  if (has_lost_a_majority()) return;
  for (auto& [id, process] : processes_) {
    if (!process->is_up()) continue;
    auto const& core = process->core();
    trace(id, "at the end: role " + std::to_string(static_cast<int>(core.role())) + ", term " +
                  std::to_string(core.term()) + ", commit " + std::to_string(core.commit()) +
                  ", durable " + std::to_string(core.durable()) + ", last " +
                  std::to_string(core.log().last_index()) + ", voters " +
                  std::to_string(core.configuration().voters()) +
                  (core.configuration().is_voter(id) ? "" : ", not one of them") +
                  (core.is_damaged() ? ", damaged" : ""));
    for (auto const& [other, progress] : core.progress()) {
      trace(id, "knows of member " + std::to_string(other.value) + describe(core, other));
    }
  }
  if (!is_done && acknowledged_ <= before + 3) checker_.fail("no progress after healing");
  if (!is_done) checker_.fail("no convergence after healing: " + laggard());
}

/// Repositories were wiped, or damaged, while members were being removed: nobody could go on.
bool Raft_sim::has_lost_a_majority() const {
  auto lost = gone_;
  for (auto const& [id, process] : processes_) {
    if (process->is_up() && process->core().is_damaged()) lost.insert(id);
  }
  for (auto const& [id, process] : processes_) {
    if (!process->is_up()) continue;
    auto const& configuration = process->core().configuration();
    std::size_t missing = 0;
    for (auto const member : lost) missing += configuration.is_voter(member) ? 1 : 0;
    if (configuration.voters() - missing < configuration.quorum()) return true;
  }
  return false;
}

/// What the leader knows of `member`.
std::string Raft_sim::describe(Raft_core const& core, Member_id member) {
  auto const found = core.progress().find(member);
  if (found == core.progress().end()) return "";
  auto const& progress = found->second;
  char const* const states[] = {"probe", "replicate", "snapshot"};
  return std::string(" (") + states[static_cast<int>(progress.state())] + ", match " +
         std::to_string(progress.match()) + ", next " + std::to_string(progress.next()) + ")";
}

/// A member of the newest configuration that is damaged or far behind the leader; empty: none.
std::string Raft_sim::laggard() {
  auto* const first = leader();
  if (first == nullptr) return "nobody leads";
  auto const& core = first->core();
  for (auto const& member : core.configuration().members) {
    auto const found = processes_.find(member.id);
    if (found == processes_.end() || gone_.contains(member.id)) continue;
    auto const& process = *found->second;
    auto const applied = process.registers().applied;
    bool const is_damaged = process.is_up() && process.core().is_damaged();
    if (process.is_up() && !is_damaged && applied + 20 >= core.commit()) continue;
    return "member " + std::to_string(member.id.value) + (is_damaged ? ", damaged," : "") +
           " is at " + std::to_string(applied) + ", leader " + std::to_string(core.id().value) +
           " at " + std::to_string(core.commit()) + describe(core, member.id);
  }
  return "";
}

}  // namespace pstorage::mds::raft
