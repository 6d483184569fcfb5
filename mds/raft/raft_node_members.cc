// Who takes part: what the leader knows of the others, and changes.
#include <algorithm>

#include "mds/raft/raft_node.h"

namespace pstorage::mds::raft {

std::vector<Log_member> Raft_node::members() const {
  std::vector<Log_member> found;
  for (auto const& member : core_->configuration().members) {
    Log_member one;
    one.id = member.id.value;
    one.address = member.address;
    one.is_voter = member.kind == Member_kind::voter;
    one.is_leader = member.id == core_->leader();
    one.is_active = member.id == id();
    if (auto const at = core_->progress().find(member.id);
        core_->is_leader() && at != core_->progress().end()) {
      auto const& progress = at->second;
      one.is_active = progress.is_active || progress.was_active;
      one.takes_copy = progress.state() == Progress::State::snapshot;
      one.has_lost = progress.has_lost();
      one.lag = core_->log().last_index() - std::min(core_->log().last_index(), progress.match());
    }
    found.push_back(std::move(one));
  }
  return found;
}

Outcome<void> Raft_node::change(Change const& change) {
  auto const changed = core_->change(change);
  if (changed.has_value()) {
    pump();
    return success();
  }
  switch (auto const code = errc_of(changed.error()); code) {
    case Errc::not_leader:
      return not_leader();
    case Errc::refused:
      return failure(code, "it is the only metadata server");
    case Errc::exists:
      return failure(code, "it is a member already");
    case Errc::not_found:
      return failure(code, "it is not a member");
    default:
      return failure(code, "another change of the metadata servers is under way: try again");
  }
}

Outcome<void> Raft_node::add_member(std::uint64_t id, std::string const& address) {
  return change({Change::Kind::add_learner, {id}, address});
}

Outcome<void> Raft_node::remove_member(std::uint64_t id) {
  auto const removed = change({Change::Kind::remove, {id}, {}});
  pump();  // a leader may have begun to hand over
  return removed;
}

/// A learner that has caught up votes from now on.
void Raft_node::promote_learners() {
  if (!leads_) return;
  auto const members = core_->configuration().members;
  for (auto const& member : members) {
    if (member.kind != Member_kind::learner || !core_->is_caught_up(member.id)) continue;
    if (core_->change({Change::Kind::promote, member.id, {}}).has_value()) {
      log_.info("a new metadata server has caught up and votes", {{"member", member.id}});
    }
  }
}

void Raft_node::hand_over() {
  if (!leads_) return;
  Member_id heir;
  std::uint64_t best = 0;
  for (auto const& [member, progress] : core_->progress()) {
    bool const is_ready = core_->configuration().is_voter(member) &&
                          (progress.is_active || progress.was_active) && !progress.has_lost();
    if (is_ready && progress.match() >= best) {
      heir = member;
      best = progress.match();
    }
  }
  if (heir && core_->transfer(heir).has_value()) pump();
}

}  // namespace pstorage::mds::raft
