#include "iscsi/tool/target_watcher.h"

#include <algorithm>
#include <filesystem>

#include "blockdev/volume/child_process.h"
#include "iscsi/tool/portal_address.h"

namespace pstorage::iscsi {
namespace {

constexpr Duration look_interval = std::chrono::seconds(1);
constexpr Duration turn_max = std::chrono::milliseconds(20);
constexpr std::uint64_t looks_for_news = 5;  // a gateway that stands by learns of changes
constexpr Duration close_patience = std::chrono::seconds(5);
constexpr int steps_max = 3;  // take the lease, move here, start

/// The command beside this program.
std::string tool_path() {
  std::error_code code;
  return std::filesystem::read_symlink("/proc/self/exe", code).parent_path() / "pstorage-iscsi";
}

}  // namespace

Target_watcher::Target_watcher(Watcher_options options, std::string host,
                               volume::Tool_session& session, Log& log)
    : options_(std::move(options)),
      host_(std::move(host)),
      session_(session),
      log_(log),
      paths_(gateway_paths(options_.cluster, options_.nbd_socket, options_.modules)),
      state_([this](proto::Mds_request request) { return session_.call(std::move(request)); }),
      failover_(host_) {}

std::function<void()> Target_watcher::turn() {
  return [this] { session_.runtime().run_turn(turn_max); };
}

void Target_watcher::pause() {
  auto const end = now() + look_interval;
  while (now() < end) session_.runtime().run_turn(turn_max);
}

Outcome<void> Target_watcher::look() {
  PS_TRY(auto const names, state_.target_names());
  ++looks_;
  for (auto const& name : names) PS_CHECK(look_at(name));
  std::vector<std::string> gone;
  for (auto const& [name, held] : held_) {
    if (std::find(names.begin(), names.end(), name) == names.end()) gone.push_back(name);
  }
  for (auto const& name : gone) {
    give_back(name);
    failover_.forget(name);
  }
  return success();
}

Outcome<void> Target_watcher::look_at(std::string const& name) {
  for (int step = 0; step < steps_max; ++step) {
    auto loaded = state_.load(name);
    if (!loaded.has_value() && errc_of(loaded.error().code) == Errc::not_found) return success();
    if (!loaded.has_value()) return loaded.error();
    Target const& target = loaded.value();
    auto const held = held_.find(name);
    if (held != held_.end() && held->second.holder.empty()) held->second.holder = target.holder;
    if (held != held_.end() && held->second.holder != target.holder) {
      log_.warn("lost the lease of a target", {{"target", name}, {"to", target.holder}});
      held_.erase(held);
    }
    PS_TRY(auto const local, local_state(target));
    bool const may_serve = target.may_serve(host_);
    Target_view const view{.should_run = target.should_run,
                           .may_move = target.may_move,
                           .owner = target.host,
                           .holder = target.holder,
                           .is_ours = held_.contains(name),
                           .may_serve = may_serve,
                           .stands_by = may_serve && !target.portals.empty(),
                           .local = local};
    if (!carry_out(failover_.decide(name, view, now()), target)) return success();
  }
  return success();
}

Outcome<Local_state> Target_watcher::local_state(Target const& target) {
  auto const here = gateway(target);
  waiting_.erase(target.name);
  if (here.pid() == 0) return Local_state::stopped;
  if (!here.is_standby()) return Local_state::serving;
  waiting_.insert(target.name);
  if (looks_ % looks_for_news != 0) return Local_state::standby;
  PS_TRY(auto const what, state_.replayed(target));
  return here.is_outdated(what) ? Local_state::outdated_standby : Local_state::standby;
}

bool Target_watcher::carry_out(Failover_step step, Target const& target) {
  Outcome<void> done = success();
  switch (step) {
    case Failover_step::none:
      return false;
    case Failover_step::take_lease:
      return take_lease(target);
    case Failover_step::take_over:
      done = move_here(target);
      break;
    case Failover_step::start:
      done = start(target);
      break;
    case Failover_step::stop_local:
      stop_local(target, target.should_run ? "another gateway serves it" : "it was stopped");
      return false;
    case Failover_step::stand_by:
      done = run_tool(target, {"--standby"});
      if (!done.has_value()) break;
      log_.info("standing by for a target", {{"target", target.name}});
      failover_.succeeded(target.name);
      return false;
    case Failover_step::give_back:
      give_back(target.name);
      return false;
  }
  if (done.has_value()) {
    failover_.succeeded(target.name);
    return true;
  }
  log_.error("cannot serve a target; trying again",
             {{"target", target.name}, {"reason", done.error().text}});
  failover_.failed(target.name, now());
  return false;
}

bool Target_watcher::take_lease(Target const& target) {
  auto opened = session_.open(owner_path(target.name));
  if (!opened.has_value()) {
    // Busy: another gateway was first. Anything else is tried again in a second.
    if (errc_of(opened.error().code) != Errc::busy) {
      log_.warn("cannot take the lease of a target",
                {{"target", target.name}, {"reason", opened.error().text}});
    }
    return false;
  }
  held_[target.name] = {std::move(opened).value(), ""};
  return true;
}

Outcome<void> Target_watcher::move_here(Target const& target) {
  log_.warn("taking a target over", {{"target", target.name}, {"from", target.host}});
  auto const guard = session_.cluster().guard_of(*held_.at(target.name).lease);
  PS_CHECK(state_.move(target.name, host_, guard));
  // The gateway before us may be alive and merely cut off: from here on nothing of it lands.
  for (auto const& [number, lun] : target.luns) {
    PS_CHECK(state_.revoke_volume(lun.volume));
    PS_CHECK(state_.revoke_volume(reservations_volume(lun.uuid)));
  }
  return success();
}

Outcome<void> Target_watcher::start(Target const& target) {
  if (!target.device.empty()) {
    PS_CHECK(bring_address(target.address.address, target.device, turn()));
  }
  PS_CHECK(run_tool(target, {}));
  log_.info("serving a target", {{"target", target.name}});
  return success();
}

/// pstorage-iscsi start.
Outcome<void> Target_watcher::run_tool(Target const& target, std::vector<std::string> const& more) {
  std::vector<std::string> words{tool_path(),       "-c",        options_.cluster, "--nbd-socket",
                                 paths_.nbd_socket, "--modules", paths_.modules};
  if (!options_.bootstrap.empty()) {
    words.insert(words.end(), {"-b", options_.bootstrap});
  }
  words.insert(words.end(), {"start", "-t", target.name});
  words.insert(words.end(), more.begin(), more.end());
  PS_CHECK(volume::run_program(words, turn()));
  return success();
}

void Target_watcher::stop_local(Target const& target, std::string const& why) {
  log_.warn("stopping a target here", {{"target", target.name}, {"reason", why}});
  auto done = gateway(target).stop();
  if (done.has_value() && !target.device.empty()) {
    done = drop_address(target.address.address, target.device, turn());
  }
  if (!done.has_value()) {
    log_.error("cannot stop a target", {{"target", target.name}, {"reason", done.error().text}});
  }
}

void Target_watcher::give_back(std::string const& name) {
  auto const held = held_.find(name);
  if (held == held_.end()) return;
  auto const lease = std::move(held->second.lease);
  held_.erase(held);
  auto const closed = session_.close(lease);
  if (!closed.has_value()) {
    log_.warn("cannot give a lease back; it ends with the session",
              {{"target", name}, {"reason", closed.error().text}});
  }
}

/// Until the NBD server has given the volumes back. The next gateway then need not take them by
/// force, which makes it wait for the sessions of those who had them.
void Target_watcher::wait_until_closed(Target const& target) {
  auto const end = now() + close_patience;
  auto const is_open = [this](std::string const& volume) {
    auto const open = state_.is_in_use(volume);
    return open.has_value() && open.value();
  };
  for (auto const& [number, lun] : target.luns) {
    while (now() < end && (is_open(lun.volume) || is_open(reservations_volume(lun.uuid)))) {
      session_.runtime().run_turn(turn_max);
    }
  }
}

void Target_watcher::leave() {
  std::vector<Target> targets;
  for (auto const& [name, held] : held_) {
    auto target = state_.load(name);
    if (!target.has_value()) continue;
    stop_local(target.value(), "pstorage-iscsid ends");
    targets.push_back(std::move(target).value());
  }
  for (auto const& target : targets) {
    wait_until_closed(target);
    give_back(target.name);
  }
  for (auto const& name : waiting_) {
    auto const target = state_.load(name);
    if (target.has_value()) stop_local(target.value(), "pstorage-iscsid ends");
  }
}

}  // namespace pstorage::iscsi
