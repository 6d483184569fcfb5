// The leader's side of the log: appends, replies, commits, membership.
#include <algorithm>
#include <utility>

#include "core/assert.h"
#include "core/mutant.h"
#include "mds/raft/raft_core.h"

namespace pstorage::mds::raft {
namespace {

// A learner this many entries behind is caught up: one round trip under load.
constexpr std::uint64_t caught_up_entries = 64;

}  // namespace

void Raft_core::sync_progress() {
  auto const& configuration = log_.configuration();
  for (auto const& member : configuration.members) {
    if (member.id != options_.id) progress_.try_emplace(member.id, log_.last_index() + 1);
  }
  std::erase_if(progress_, [&](auto const& item) { return !configuration.find(item.first); });
}

void Raft_core::send_appends() {
  for (auto& [member, progress] : progress_) {
    while (progress.may_send(options_.window) && progress.next() <= log_.last_index()) {
      send_append(member, progress);
      if (progress.state() != Progress::State::replicate) break;
    }
  }
}

/// One append with what follows next(), perhaps nothing.
void Raft_core::send_append(Member_id to, Progress& progress) {
  auto const before = progress.next() - 1;
  auto const before_term = log_.term_at(before);
  if (!before_term) {
    if (!progress.is_active) {  // nobody would hear the snapshot
      progress.probe(progress.next());
      return progress.wait();
    }
    progress.snapshot();
    snapshots_needed_.push_back(to);
    return;
  }
  Raft_message message{.kind = Message_kind::append,
                       .to = to,
                       .index = before,
                       .log_term = *before_term,
                       .commit = hard_.commit};
  std::size_t bytes = 0;
  if (progress.next() <= log_.last_index() && progress.may_send(options_.window)) {
    message.entries = log_.slice(progress.next(), log_.last_index(), options_.append_bytes_max);
    for (auto const& entry : message.entries) bytes += cost_of(entry);
  }
  progress.sent(before + message.entries.size(), bytes);
  send(std::move(message));
}

void Raft_core::on_append_reply(Raft_message const& message) {
  if (!is_leader()) return;
  auto const found = progress_.find(message.from);
  if (found == progress_.end()) return;
  auto& progress = found->second;
  progress.is_active = true;
  if (message.is_reject) return on_rejected(progress, message);
  if (message.index > log_.last_index()) return;  // no honest member acknowledges that
  progress.acknowledged(message.index);
  bool const is_reached =
      progress.state() != Progress::State::snapshot || progress.match() >= log_.base_index();
  if (progress.state() != Progress::State::replicate && is_reached) progress.replicate();
  maybe_commit();
  continue_transfer(message.from, progress);
}

void Raft_core::on_rejected(Progress& progress, Raft_message const& message) {
  if (progress.state() == Progress::State::snapshot) return;
  if (message.has_lost) {
    progress.forget_match();
    return probe_at(progress, log_.agree_at(message.hint, message.hint_term) + 1);
  }
  if (progress.state() == Progress::State::replicate) {
    // Something before it was lost on the way. Rejections older than `match` are late.
    if (message.index > progress.match()) progress.probe(progress.match() + 1);
    return;
  }
  if (message.index + 1 != progress.next()) return;  // of an earlier probe
  if (progress.match() != 0 && message.index == progress.match()) progress.denied_match();
  auto const hint = std::min(message.hint, message.index);
  probe_at(progress, log_.agree_at(hint, message.hint_term) + 1);
}

void Raft_core::probe_at(Progress& progress, std::uint64_t next) {
  bool const is_nearer = next < progress.next();
  progress.probe(next);
  // Without that the two would send each other the same messages as fast as they can.
  if (!is_nearer) progress.wait();
}

void Raft_core::maybe_commit() {
  auto const& configuration = log_.configuration();
  std::vector<std::uint64_t> copies;  // how far each voter's durable log goes
  for (auto const& member : configuration.members) {
    if (member.kind != Member_kind::voter && !PS_MUTANT(learners_count)) continue;
    if (member.id == options_.id) {
      copies.push_back(PS_MUTANT(count_what_is_not_durable_here) ? log_.last_index() : durable_);
    } else {
      copies.push_back(progress_.at(member.id).match());
    }
  }
  if (copies.size() < configuration.quorum()) return;
  std::sort(copies.begin(), copies.end(), std::greater<>());
  auto const index = copies[configuration.quorum() - 1];
  if (index <= hard_.commit) return;
  // Only entries of our own term are committed by counting (thesis, figure 3.7): a majority may
  // hold an older one and yet lose it to a leader with a newer last term.
  if (log_.term_at(index) != hard_.term && !PS_MUTANT(commit_an_older_term_by_counting)) return;
  for (auto at = hard_.commit + 1; at <= index; ++at) {
    uncommitted_bytes_ -= std::min(uncommitted_bytes_, cost_of(log_.at(at)));
  }
  hard_.commit = index;
}

void Raft_core::on_heartbeat_reply(Raft_message const& message) {
  if (!is_leader()) return;
  auto const found = progress_.find(message.from);
  if (found == progress_.end()) return;
  auto& progress = found->second;
  progress.is_active = true;
  progress.round_acked = std::max(progress.round_acked, message.context);
  progress.stop_waiting();
  // Still without an acknowledgement: an append may be lost. An empty one behind what was sent is
  // rejected if so.
  bool const is_behind = progress.match() < log_.last_index() || message.has_lost;
  if (progress.state() != Progress::State::snapshot && is_behind) {
    send_append(message.from, progress);
  }
  answer_reads();
}

bool Raft_core::is_caught_up(Member_id member) const {
  auto const found = progress_.find(member);
  return found != progress_.end() && found->second.state() == Progress::State::replicate &&
         found->second.match() + caught_up_entries >= log_.last_index();
}

void Raft_core::snapshot_sent(Member_id peer, bool is_ok) {
  auto const found = progress_.find(peer);
  if (found == progress_.end() || found->second.state() != Progress::State::snapshot) return;
  // Its acknowledgement says how far it got; until then, or if it failed, wait for a sign of life.
  found->second.probe(is_ok ? log_.last_index() + 1 : found->second.match() + 1);
  found->second.wait();
}

Result<std::uint64_t> Raft_core::change(Change const& change) {
  if (!is_leader()) return Errc::not_leader;
  if (transferee_) return Errc::unavailable;
  // Without an entry of this term committed, two leaders could each change the membership on
  // their own and form disjoint majorities (the bug of 2015 in single-server changes).
  if (!has_committed_own() && !PS_MUTANT(change_members_before_the_first_commit)) {
    return Errc::unavailable;
  }
  if (log_.configuration_index() > hard_.commit && !PS_MUTANT(two_changes_at_once)) {
    return Errc::unavailable;
  }
  auto next = log_.configuration();
  auto const* member = next.find(change.id);
  switch (change.kind) {
    case Change::Kind::add_learner:
      if (member != nullptr) return Errc::exists;
      next.add({change.id, Member_kind::learner, change.address});
      break;
    case Change::Kind::promote:
      if (member == nullptr) return Errc::not_found;
      if (member->kind == Member_kind::voter) return Errc::exists;
      if (!is_caught_up(change.id)) return Errc::unavailable;
      next.add({change.id, Member_kind::voter, member->address});
      break;
    case Change::Kind::remove:
      if (member == nullptr) return Errc::not_found;
      if (next.is_voter(change.id) && next.voters() == 1) return Errc::refused;
      if (change.id == options_.id) {
        auto const heir = std::max_element(
            progress_.begin(), progress_.end(), [&next](auto const& a, auto const& b) {
              return std::pair(next.is_voter(a.first), a.second.match()) <
                     std::pair(next.is_voter(b.first), b.second.match());
            });
        PS_CHECK(transfer(heir->first));
        return Errc::unavailable;
      }
      next.remove(change.id);
      break;
  }
  append(Entry_kind::configuration, Slice::copy_of(as_bytes(encode_configuration(next))));
  sync_progress();
  maybe_commit();
  return log_.last_index();
}

}  // namespace pstorage::mds::raft
