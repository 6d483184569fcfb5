// Construction, dispatch and the contract with the disk: Readys out, persisted() in.
#include "mds/raft/raft_core.h"

#include <algorithm>
#include <utility>

#include "core/assert.h"
#include "core/mutant.h"

namespace pstorage::mds::raft {
namespace {

// Of one Ready: a long log is not replayed in one turn.
constexpr std::size_t committed_bytes_max = 8u << 20;

}  // namespace

Raft_core::Raft_core(Core_options options, Core_state state, Random& random)
    : options_(options),
      random_(random),
      hard_(state.hard),
      log_(std::move(state.base), std::move(state.entries)) {
  PS_ASSERT(options_.id && options_.election_ticks > options_.heartbeat_ticks);
  PS_ASSERT(state.applied >= log_.base_index());
  submitted_ = durable_ = log_.last_index();
  submitted_hard_ = hard_;
  durable_term_ = hard_.term;
  handed_out_ = state.applied;
  next_read_ = random_.next();
  reset();
  if (state.installing && state.installing->index == state.applied &&
      log_.term_at(state.applied) != state.installing->term) {
    replace_log(*std::move(state.installing));
    return;
  }
  // The state machine has only what was committed. But a damaged log may differ from it, or end
  // before.
  if (!is_damaged()) hard_.commit = std::max(hard_.commit, state.applied);
  hard_.commit = std::min(hard_.commit, log_.last_index());
  hard_.commit = std::max(hard_.commit, log_.base_index());
}

void Raft_core::tick() {
  ++elapsed_;
  if (!outstanding_.empty()) ++stalled_ticks_;
  expire_reads();
  if (is_leader()) {
    tick_leader();
  } else if (elapsed_ >= timeout_ && may_campaign()) {
    elapsed_ = 0;
    start_campaign(Campaign::pre);
  } else if (elapsed_ >= timeout_) {
    // It may not stand itself, but its vote may be needed: without knowing, if it is a learner.
    if (PS_MUTANT(a_learner_trusts_its_leader_for_ever)) {
      elapsed_ = 0;
      return;
    }
    leader_ = {};
  }
}

bool Raft_core::is_disk_stalled() const { return stalled_ticks_ >= 2 * options_.election_ticks; }

void Raft_core::step(Raft_message message) {
  if (message.to != options_.id || message.from == options_.id || !is_well_formed(message)) return;
  if (message.term > hard_.term) {
    if (!accept_newer_term(message)) return;
  } else if (message.term < hard_.term && !PS_MUTANT(obey_an_older_term)) {
    answer_older_term(message);
    return;
  }
  dispatch(message);
}

bool Raft_core::accept_newer_term(Raft_message const& message) {
  bool const is_asking_votes =
      message.kind == Message_kind::vote || message.kind == Message_kind::pre_vote;
  if (is_asking_votes && !message.is_transfer && leader_ && elapsed_ < options_.election_ticks) {
    // We hear the leader well. A member that does not shall not depose it.
    return false;
  }
  if (message.kind == Message_kind::pre_vote) return true;
  if (message.kind == Message_kind::pre_vote_reply && !message.is_reject) return true;
  bool const is_from_leader =
      message.kind == Message_kind::append || message.kind == Message_kind::heartbeat;
  become_follower(message.term, is_from_leader ? message.from : Member_id{});
  return true;
}

void Raft_core::answer_older_term(Raft_message const& message) {
  // A leader that was cut off while we went on hears the new term. It would never hear of it
  // otherwise: we do not listen to it, and with pre-vote nobody raises terms just so.
  Raft_message reply{.to = message.from, .is_reject = true};
  if (message.kind == Message_kind::append || message.kind == Message_kind::heartbeat) {
    reply.kind = Message_kind::append_reply;
  } else if (message.kind == Message_kind::pre_vote) {
    reply.kind = Message_kind::pre_vote_reply;
  } else if (message.kind == Message_kind::append_reply && PS_MUTANT(count_acks_of_older_terms)) {
    return on_append_reply(message);
  } else {
    return;
  }
  send(std::move(reply));
}

void Raft_core::dispatch(Raft_message& message) {
  switch (message.kind) {
    case Message_kind::append:
      return on_append(message);
    case Message_kind::append_reply:
      return on_append_reply(message);
    case Message_kind::heartbeat:
      return on_heartbeat(message);
    case Message_kind::heartbeat_reply:
      return on_heartbeat_reply(message);
    case Message_kind::pre_vote:
    case Message_kind::vote:
      return on_vote(message);
    case Message_kind::pre_vote_reply:
    case Message_kind::vote_reply:
      return on_vote_reply(message);
    case Message_kind::read:
      return on_read(message);
    case Message_kind::read_reply:
      return on_read_reply(message);
    case Message_kind::timeout_now:
      return on_timeout_now(message);
  }
}

void Raft_core::send(Raft_message message) {
  message.from = options_.id;
  if (message.term == 0) message.term = hard_.term;
  bool is_promise = true;
  switch (message.kind) {
    case Message_kind::append:
    case Message_kind::heartbeat:
    case Message_kind::timeout_now:
    case Message_kind::read:
    case Message_kind::read_reply:
      // Of a leader, whose term is durable since its election; or without any promise.
      is_promise = false;
      break;
    case Message_kind::heartbeat_reply:
      is_promise = durable_term_ != hard_.term;
      break;
    case Message_kind::vote:
    case Message_kind::vote_reply:
      is_promise = !PS_MUTANT(votes_leave_before_they_are_durable);
      break;
    case Message_kind::append_reply:
      is_promise = !PS_MUTANT(acks_leave_before_they_are_durable);
      break;
    case Message_kind::pre_vote:
    case Message_kind::pre_vote_reply:
      break;
  }
  (is_promise ? messages_after_ : messages_now_).push_back(std::move(message));
}

Result<std::uint64_t> Raft_core::propose(Slice bytes) {
  if (!is_leader()) return Errc::not_leader;
  if (transferee_) return Errc::unavailable;
  if (uncommitted_bytes_ != 0 &&
      uncommitted_bytes_ + bytes.size() > options_.uncommitted_bytes_max) {
    return Errc::unavailable;
  }
  append(Entry_kind::command, std::move(bytes));
  return log_.last_index();
}

void Raft_core::append(Entry_kind kind, Slice bytes) {
  Log_entry entry{log_.last_index() + 1, hard_.term, kind, std::move(bytes)};
  uncommitted_bytes_ += cost_of(entry);
  log_.append(std::move(entry));
}

void Raft_core::truncate_from(std::uint64_t index) {
  PS_ASSERT(index > hard_.commit);
  log_.truncate_from(index);
  verified_ = std::min(verified_, index - 1);
  if (index > submitted_) return;  // the disk has never heard of them
  truncate_from_ = truncate_from_ == 0 ? index : std::min(truncate_from_, index);
  submitted_ = index - 1;
  durable_ = std::min(durable_, index - 1);
  // A Ready under way may report entries durable that a later one voids, even if equal ones are
  // appended again behind that.
  if (PS_MUTANT(a_voided_write_counts)) return;
  for (auto& outstanding : outstanding_) {
    outstanding.last_index = std::min(outstanding.last_index, index - 1);
  }
}

bool Raft_core::is_hard_new() const {
  auto comparable = submitted_hard_;
  comparable.commit = hard_.commit;
  return !(comparable == hard_);
}

bool Raft_core::has_ready() {
  if (is_leader()) {
    send_heartbeats();
    send_appends();
  }
  bool const has_news_for_disk =
      install_ || truncate_from_ != 0 || submitted_ < log_.last_index() || is_hard_new();
  bool const has_messages = !messages_now_.empty() || !messages_after_.empty();
  bool const has_results = !read_states_.empty() || !snapshots_needed_.empty() || has_stepped_down_;
  if (has_news_for_disk || has_messages || has_results) return true;
  return handed_out_ < std::min(hard_.commit, durable_);
}

Ready Raft_core::take_ready() {
  Ready ready;
  ready.must_sync =
      install_ || truncate_from_ != 0 || submitted_ < log_.last_index() || is_hard_new();
  ready.hard = hard_;
  if (PS_MUTANT(vote_is_not_persisted)) ready.hard.vote = {};
  ready.install = std::exchange(install_, std::nullopt);
  ready.truncate_from = std::exchange(truncate_from_, 0);
  if (submitted_ < log_.last_index()) {
    ready.entries = log_.slice(submitted_ + 1, log_.last_index(), ~std::size_t{0});
    submitted_ = log_.last_index();
  }
  submitted_hard_ = hard_;
  ready.messages_now = std::exchange(messages_now_, {});
  ready.messages_after = std::exchange(messages_after_, {});
  if (ready.must_sync || (!ready.messages_after.empty() && !outstanding_.empty())) {
    ready.token = ++last_token_;
    bool const has_log = ready.install || !ready.entries.empty();
    outstanding_.push_back({ready.token, has_log ? submitted_ : 0, ready.hard.term});
  } else {
    std::move(ready.messages_after.begin(), ready.messages_after.end(),
              std::back_inserter(ready.messages_now));
    ready.messages_after.clear();
  }
  auto const until = std::min(
      hard_.commit, PS_MUTANT(hand_out_what_is_not_durable) ? log_.last_index() : durable_);
  if (handed_out_ < until) {
    ready.committed = log_.slice(handed_out_ + 1, until, committed_bytes_max);
    handed_out_ = ready.committed.back().index;
  }
  ready.reads = std::exchange(read_states_, {});
  ready.snapshots_needed = std::exchange(snapshots_needed_, {});
  ready.has_stepped_down = std::exchange(has_stepped_down_, false);
  return ready;
}

void Raft_core::persisted(std::uint64_t token) {
  while (!outstanding_.empty() && outstanding_.front().token <= token) {
    auto const& done = outstanding_.front();
    durable_ = std::max(durable_, done.last_index);
    durable_term_ = done.term;
    outstanding_.pop_front();
    stalled_ticks_ = 0;
  }
  if (role_ == Raft_role::candidate && durable_term_ == hard_.term && hard_.vote == options_.id) {
    votes_[options_.id] = true;
    tally();
  }
  if (is_leader()) maybe_commit();
  maybe_repaired();
}

void Raft_core::cut(std::uint64_t index) {
  log_.cut(std::min({index, handed_out_, durable_, hard_.commit}));
}

bool Raft_core::wants_snapshot(std::uint64_t index) const {
  return index > hard_.commit && index > handed_out_ && !is_leader();
}

void Raft_core::replace_log(Snapshot snapshot) {
  if (PS_MUTANT(snapshot_keeps_the_configuration)) snapshot.configuration = log_.configuration();
  hard_.commit = handed_out_ = submitted_ = snapshot.index;
  durable_ = std::min(durable_, snapshot.index);
  for (auto& outstanding : outstanding_) outstanding.last_index = 0;
  truncate_from_ = 0;
  log_.reset(snapshot);
  install_ = std::move(snapshot);
}

void Raft_core::refuse_snapshot(Member_id leader, std::uint64_t term) {
  if (term != hard_.term || is_leader()) return;
  // Every leader has what is committed, as we have it.
  auto const index = std::min(hard_.commit, durable_);
  send({.kind = Message_kind::append_reply, .to = leader, .index = index});
}

void Raft_core::snapshot_installed(Snapshot snapshot, Member_id leader, std::uint64_t term) {
  PS_ASSERT(wants_snapshot(snapshot.index));
  bool const is_candidate = term == hard_.term && role_ != Raft_role::follower;
  if (term > hard_.term || is_candidate) become_follower(term, leader);
  auto const index = snapshot.index;
  // A log that agrees there keeps what is behind: it may be acknowledged.
  bool const agrees =
      log_.term_at(index) == snapshot.term && !PS_MUTANT(snapshot_drops_what_is_behind_it);
  if (!agrees) replace_log(std::move(snapshot));
  hard_.commit = index;
  handed_out_ = index;
  if (term == hard_.term) {
    leader_ = leader;
    elapsed_ = 0;
    verified_ = std::max(verified_, index);
    send({.kind = Message_kind::append_reply, .to = leader, .index = index});
  }
  maybe_repaired();
}

}  // namespace pstorage::mds::raft
