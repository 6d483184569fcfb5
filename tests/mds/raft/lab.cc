#include "tests/mds/raft/lab.h"

#include <algorithm>
#include <utility>

namespace pstorage::mds::raft {

Ready Toy_disk::complete() {
  Ready ready = std::move(under_way_.front());
  under_way_.pop_front();
  state_.hard = ready.hard;
  auto& entries = state_.entries;
  if (ready.install) {
    state_.base = *ready.install;
    entries.clear();
  }
  if (ready.truncate_from != 0) {
    while (!entries.empty() && entries.back().index >= ready.truncate_from) entries.pop_back();
  }
  entries.insert(entries.end(), ready.entries.begin(), ready.entries.end());
  return ready;
}

void Toy_disk::cut(Snapshot base) {
  std::erase_if(state_.entries, [&](auto const& entry) { return entry.index <= base.index; });
  state_.base = std::move(base);
}

Lab::Lab(std::size_t voters, Core_options options) : options_(options) {
  Configuration configuration;
  for (std::uint64_t id = 1; id <= voters; ++id) {
    configuration.add({Member_id{id}, Member_kind::voter, ""});
  }
  for (std::uint64_t id = 1; id <= voters; ++id) {
    members_.emplace(
        id, Lab_member{
                .core = nullptr, .disk = Toy_disk(configuration), .handed_out = {}, .reads = {}});
    restart(id);
  }
}

Core_options Lab::options_for(std::uint64_t member) const {
  auto options = options_;
  options.id = Member_id{member};
  return options;
}

void Lab::add(std::uint64_t member) {
  members_.emplace(
      member, Lab_member{.core = nullptr, .disk = Toy_disk({}), .handed_out = {}, .reads = {}});
  restart(member);
}

void Lab::restart(std::uint64_t id) {
  auto& member = members_.at(id);
  auto state = member.disk.state();
  state.applied = std::max<std::uint64_t>(
      member.handed_out.empty() ? 0 : member.handed_out.back().index, state.base.index);
  checker_.recovered(Member_id{id}, state);
  member.core = std::make_unique<Raft_core>(options_for(id), std::move(state), random_);
}

void Lab::crash(std::uint64_t id) {
  auto& member = members_.at(id);
  member.core.reset();
  member.disk.crash();
  std::erase_if(wire_, [id](auto const& message) { return message.to.value == id; });
}

void Lab::damage(std::uint64_t id, std::uint64_t index) {
  auto& state = members_.at(id).disk.state();
  state.hard.repair_until = state.base.index + state.entries.size();
  state.hard.repair_term = state.hard.term;
  std::erase_if(state.entries, [index](auto const& entry) { return entry.index >= index; });
  checker_.damaged(Member_id{id});
}

void Lab::hold_disk(std::uint64_t member, bool is_held) {
  members_.at(member).is_disk_held = is_held;
  if (!is_held) turn(member);
}

void Lab::post(std::vector<Raft_message> messages) {
  for (auto& message : messages) wire_.push_back(std::move(message));
}

void Lab::turn(std::uint64_t id) {
  auto& member = members_.at(id);
  if (!member.core) return;
  bool is_done = false;
  while (!is_done) {
    is_done = true;
    checker_.look(*member.core);
    if (member.core->has_ready()) {
      is_done = false;
      auto ready = member.core->take_ready();
      checker_.submitted(Member_id{id}, ready);
      post(std::move(ready.messages_now));
      for (auto& entry : ready.committed) {
        checker_.handed_out(Member_id{id}, entry);
        member.handed_out.push_back(entry);
      }
      member.reads.insert(member.reads.end(), ready.reads.begin(), ready.reads.end());
      for (auto const peer : ready.snapshots_needed) snapshots_needed_.insert(peer.value);
      member.has_stepped_down = member.has_stepped_down || ready.has_stepped_down;
      if (ready.token != 0) member.disk.write(std::move(ready));
    }
    if (member.disk.is_busy() && !member.is_disk_held) {
      is_done = false;
      auto ready = member.disk.complete();
      checker_.persisted(Member_id{id}, ready.token);
      post(std::move(ready.messages_after));
      member.core->persisted(ready.token);
    }
  }
}

void Lab::sync_one(std::uint64_t id) {
  auto& member = members_.at(id);
  auto ready = member.disk.complete();
  checker_.persisted(Member_id{id}, ready.token);
  post(std::move(ready.messages_after));
  member.core->persisted(ready.token);
  turn(id);
}

Snapshot Lab::snapshot_of(std::uint64_t leader, std::uint64_t index) {
  auto& member = members_.at(leader);
  return member.core->log().snapshot_at(index != 0 ? index : member.handed_out.back().index);
}

bool Lab::install(std::uint64_t id, Snapshot snapshot, std::uint64_t leader, std::uint64_t term) {
  auto& member = members_.at(id);
  if (!member.core->wants_snapshot(snapshot.index)) {
    member.core->refuse_snapshot(Member_id{leader}, term);
    turn(id);
    deliver_all();
    core(leader).snapshot_sent(Member_id{id}, false);
    return false;
  }
  member.handed_out = members_.at(leader).handed_out;
  std::erase_if(member.handed_out, [&](auto const& entry) { return entry.index > snapshot.index; });
  member.core->snapshot_installed(std::move(snapshot), Member_id{leader}, term);
  turn(id);
  snapshots_needed_.erase(id);
  if (!members_.at(leader).core) return true;
  core(leader).snapshot_sent(Member_id{id}, true);
  turn(leader);
  return true;
}

void Lab::tick(std::uint64_t member, unsigned ticks) {
  for (unsigned i = 0; i < ticks && core(member).id(); ++i) {
    core(member).tick();
    turn(member);
  }
}

void Lab::forget_leaders() {
  for (auto& [id, member] : members_) {
    if (!member.core || member.core->is_leader()) continue;
    // As long as it takes to distrust the leader, not as long as to stand.
    for (unsigned i = 0; i < options_.election_ticks; ++i) {
      if (member.core->role() == Raft_role::follower) member.core->tick();
    }
  }
}

bool Lab::elect(std::uint64_t member) {
  forget_leaders();
  core(member).campaign();
  turn(member);
  deliver_all();
  return core(member).is_leader();
}

std::optional<std::uint64_t> Lab::propose(std::uint64_t member, std::string const& command) {
  auto const index = core(member).propose(Slice::copy_of(as_bytes(command)));
  turn(member);
  return index.has_value() ? std::optional(index.value()) : std::nullopt;
}

void Lab::cut(std::uint64_t one, std::uint64_t other) {
  cuts_.emplace(one, other);
  cuts_.emplace(other, one);
}

void Lab::isolate(std::uint64_t member) {
  for (auto const& [other, _] : members_) cut(member, other);
}

std::vector<Raft_message> Lab::release() {
  held_if_ = nullptr;
  std::vector<Raft_message> released(held_.begin(), held_.end());
  held_.clear();
  return released;
}

void Lab::deliver(Raft_message message) {
  auto const found = members_.find(message.to.value);
  if (found == members_.end() || !found->second.core) return;
  if (cuts_.contains({message.from.value, message.to.value})) return;
  found->second.core->step(std::move(message));
  turn(found->first);
}

bool Lab::deliver_all() {
  for (int i = 0; i < 100000; ++i) {
    if (wire_.empty()) return true;
    auto message = std::move(wire_.front());
    wire_.pop_front();
    if (held_if_ && held_if_(message)) {
      held_.push_back(std::move(message));
    } else {
      deliver(std::move(message));
    }
  }
  return false;
}

void Lab::run(unsigned ticks) {
  for (unsigned i = 0; i < ticks; ++i) {
    for (auto& [id, member] : members_) {
      if (member.core) tick(id);
    }
    deliver_all();
  }
}

std::vector<std::string> Lab::commands(std::uint64_t member) {
  std::vector<std::string> found;
  for (auto const& entry : members_.at(member).handed_out) {
    if (entry.kind != Entry_kind::command) continue;
    found.emplace_back(as_text(entry.bytes.bytes()));
  }
  return found;
}

std::string Lab::verdict(bool holds, std::string const& otherwise) {
  if (!checker_.fault().empty()) return checker_.fault();
  return holds ? "" : otherwise;
}

}  // namespace pstorage::mds::raft
