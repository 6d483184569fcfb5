// Elections: pre-vote, votes, check of the quorum, handing over.
#include <utility>

#include "core/assert.h"
#include "core/mutant.h"
#include "mds/raft/raft_core.h"

namespace pstorage::mds::raft {

void Raft_core::reset() {
  elapsed_ = 0;
  heartbeat_elapsed_ = 0;
  timeout_ =
      options_.election_ticks + static_cast<unsigned>(random_.below(options_.election_ticks));
  votes_.clear();
  verified_ = 0;
  progress_.clear();
  transferee_ = {};
  uncommitted_bytes_ = 0;
  reads_.clear();
}

void Raft_core::become_follower(std::uint64_t term, Member_id leader) {
  PS_ASSERT(term >= hard_.term);
  if (is_leader()) has_stepped_down_ = true;
  if (term > hard_.term) {
    hard_.term = term;
    hard_.vote = {};
  }
  fail_reads();
  reset();
  role_ = Raft_role::follower;
  leader_ = leader;
}

bool Raft_core::may_campaign() const {
  bool const is_whole = !is_damaged() || PS_MUTANT(a_damaged_member_votes);
  return is_whole && !is_leader() && log_.configuration().is_voter(options_.id) &&
         !is_disk_stalled();
}

void Raft_core::campaign() { start_campaign(Campaign::pre); }

void Raft_core::start_campaign(Campaign kind) {
  if (!may_campaign()) return;
  fail_reads();
  reset();
  leader_ = {};
  auto asked = Message_kind::vote;
  auto term = hard_.term + 1;
  if (kind == Campaign::pre) {
    role_ = Raft_role::pre_candidate;
    votes_[options_.id] = true;
    asked = Message_kind::pre_vote;
  } else {
    role_ = Raft_role::candidate;
    hard_.term = term;
    hard_.vote = options_.id;  // counts once it is durable: persisted()
    if (PS_MUTANT(own_vote_counts_before_it_is_durable)) votes_[options_.id] = true;
  }
  for (auto const& member : log_.configuration().members) {
    if (member.id == options_.id || member.kind != Member_kind::voter) continue;
    send({.kind = asked,
          .to = member.id,
          .term = term,
          .index = log_.last_index(),
          .log_term = log_.last_term(),
          .is_transfer = kind == Campaign::transfer});
  }
  tally();
}

void Raft_core::on_vote(Raft_message const& message) {
  bool const is_pre = message.kind == Message_kind::pre_vote;
  bool may_vote = hard_.vote == message.from || (!hard_.vote && !leader_);
  if (is_pre) may_vote = message.term > hard_.term;
  if (PS_MUTANT(vote_twice)) may_vote = true;
  if (is_damaged() && !PS_MUTANT(a_damaged_member_votes)) may_vote = false;
  bool const is_up_to_date =
      std::pair(message.log_term, message.index) >= std::pair(log_.last_term(), log_.last_index());
  bool const is_granted = may_vote && (is_up_to_date || PS_MUTANT(vote_for_a_shorter_log));
  Raft_message reply{.kind = is_pre ? Message_kind::pre_vote_reply : Message_kind::vote_reply,
                     .to = message.from,
                     .term = is_pre && is_granted ? message.term : hard_.term,
                     .is_reject = !is_granted};
  if (is_granted && !is_pre) {
    hard_.vote = message.from;
    elapsed_ = 0;
  }
  send(std::move(reply));
}

void Raft_core::on_vote_reply(Raft_message const& message) {
  bool const is_pre = message.kind == Message_kind::pre_vote_reply;
  if (role_ != (is_pre ? Raft_role::pre_candidate : Raft_role::candidate)) return;
  // A granted pre-vote carries the term that it is for; one of an earlier attempt is void.
  if (is_pre && !message.is_reject && message.term != hard_.term + 1) return;
  votes_.emplace(message.from, !message.is_reject);
  tally();
}

void Raft_core::tally() {
  auto const& configuration = log_.configuration();
  std::size_t granted = 0, refused = 0;
  for (auto const& [member, is_granted] : votes_) {
    if (!configuration.is_voter(member) && !PS_MUTANT(learners_count)) continue;
    ++(is_granted ? granted : refused);
  }
  if (granted >= configuration.quorum()) {
    if (role_ == Raft_role::pre_candidate) {
      start_campaign(Campaign::real);
    } else {
      become_leader();
    }
  } else if (refused >= configuration.quorum()) {
    become_follower(hard_.term, {});
  }
}

void Raft_core::become_leader() {
  PS_ASSERT(role_ == Raft_role::candidate);
  reset();
  role_ = Raft_role::leader;
  leader_ = options_.id;
  round_ = 0;
  first_own_index_ = log_.last_index() + 1;
  sync_progress();
  // Entries of earlier terms commit with the first of this one, never by being counted.
  append(Entry_kind::begin, {});
}

void Raft_core::tick_leader() {
  if (is_disk_stalled()) {
    // Heartbeats alone would keep the others waiting for a leader that stores nothing.
    become_follower(hard_.term, {});
    return;
  }
  if (elapsed_ >= options_.election_ticks) {
    elapsed_ = 0;
    transferee_ = {};  // it had its chance: serve again
    check_quorum();
    if (!is_leader()) return;
  }
  if (++heartbeat_elapsed_ < options_.heartbeat_ticks) return;
  heartbeat_elapsed_ = 0;
  ++round_;
  for (auto& [member, progress] : progress_) {
    auto const commit = PS_MUTANT(heartbeats_commit_what_they_like)
                            ? hard_.commit
                            : std::min(hard_.commit, progress.match());
    send({.kind = Message_kind::heartbeat, .to = member, .commit = commit, .context = round_});
  }
}

void Raft_core::check_quorum() {
  if (PS_MUTANT(lead_without_a_quorum)) return;
  auto const& configuration = log_.configuration();
  std::size_t active = 1;
  for (auto& [member, progress] : progress_) {
    progress.was_active = std::exchange(progress.is_active, false);
    if (progress.was_active && configuration.is_voter(member)) ++active;
  }
  if (active < configuration.quorum()) become_follower(hard_.term, {});
}

Result<void> Raft_core::transfer(Member_id to) {
  if (!is_leader()) return Errc::not_leader;
  auto const found = progress_.find(to);
  if (found == progress_.end() || !log_.configuration().is_voter(to)) return Errc::not_found;
  if (transferee_ == to) return success();
  transferee_ = to;
  elapsed_ = 0;
  continue_transfer(to, found->second);
  return success();
}

void Raft_core::continue_transfer(Member_id from, Progress const& progress) {
  if (transferee_ != from || progress.match() != log_.last_index()) return;
  send({.kind = Message_kind::timeout_now, .to = from});
}

void Raft_core::on_timeout_now(Raft_message const& message) {
  if (role_ == Raft_role::leader || message.from != leader_) return;
  start_campaign(Campaign::transfer);
}

}  // namespace pstorage::mds::raft
