// The follower's side of the log.
#include <algorithm>
#include <utility>

#include "core/assert.h"
#include "core/mutant.h"
#include "mds/raft/raft_core.h"

namespace pstorage::mds::raft {

bool Raft_core::is_well_formed(Raft_message const& message) const {
  if (!message.from || message.term == 0) return false;
  if (message.kind != Message_kind::append) return message.entries.empty();
  if (message.log_term > message.term) return false;
  auto index = message.index;
  auto term = message.log_term;
  for (auto const& entry : message.entries) {
    if (entry.index != ++index || entry.term < term || entry.term > message.term) return false;
    term = entry.term;
    bool const is_configuration = entry.kind == Entry_kind::configuration;
    if (is_configuration && !decode_configuration(entry.bytes.bytes()).has_value()) return false;
  }
  return true;
}

void Raft_core::on_append(Raft_message& message) {
  if (is_leader()) return;  // of our own term: no other leader can be
  if (role_ != Raft_role::follower) become_follower(hard_.term, message.from);
  leader_ = message.from;
  elapsed_ = 0;
  if (message.index < hard_.commit) {
    verified_ = std::max(verified_, hard_.commit);
    send({.kind = Message_kind::append_reply, .to = message.from, .index = hard_.commit});
    return;
  }
  if (log_.term_at(message.index) != message.log_term) {
    auto const hint = log_.agree_at(message.index, message.log_term);
    send({.kind = Message_kind::append_reply,
          .to = message.from,
          .index = message.index,
          .is_reject = true,
          .has_lost = is_damaged(),
          .hint = hint,
          .hint_term = log_.term_at(hint).value_or(0)});
    return;
  }
  auto const last_new = message.index + message.entries.size();
  take_entries(message.entries);
  verified_ = std::max(verified_, last_new);
  commit_to(std::min(message.commit,
                     PS_MUTANT(commit_what_is_not_verified) ? log_.last_index() : last_new));
  // What lies behind last_new may be of a deposed leader: never acknowledged.
  send({.kind = Message_kind::append_reply,
        .to = message.from,
        .index = PS_MUTANT(acknowledge_what_is_not_verified) ? log_.last_index() : last_new});
  maybe_repaired();
}

void Raft_core::take_entries(std::vector<Log_entry>& entries) {
  for (auto& entry : entries) {
    auto const have = log_.term_at(entry.index);
    if (have && (*have == entry.term || PS_MUTANT(keep_conflicting_entries))) continue;
    if (have) truncate_from(entry.index);
    log_.append(std::move(entry));
  }
}

void Raft_core::on_heartbeat(Raft_message const& message) {
  if (is_leader()) return;
  if (role_ != Raft_role::follower) become_follower(hard_.term, message.from);
  leader_ = message.from;
  elapsed_ = 0;
  // The leader names only what we have acknowledged in its term. A damaged log is shorter.
  commit_to(std::min(message.commit, is_damaged() ? verified_ : log_.last_index()));
  send({.kind = Message_kind::heartbeat_reply,
        .to = message.from,
        .context = message.context,
        .has_lost = is_damaged()});
  maybe_repaired();
}

void Raft_core::commit_to(std::uint64_t index) {
  PS_ASSERT(index <= log_.last_index());
  hard_.commit = std::max(hard_.commit, index);
}

void Raft_core::maybe_repaired() {
  if (!is_damaged() || is_leader()) return;
  auto const whole = std::min(verified_, durable_);
  // Either everything is back that we may have acknowledged; or a later leader has committed in
  // its own term and we hold that much: what was committed before is below it, and the rest of what
  // we lost never was and never will be.
  bool const is_overtaken = hard_.term > hard_.repair_term && durable_ >= hard_.commit &&
                            log_.term_at(hard_.commit) == hard_.term;
  if (whole < hard_.repair_until && !is_overtaken && !PS_MUTANT(repaired_too_early)) return;
  hard_.repair_until = 0;
  hard_.repair_term = 0;
}

}  // namespace pstorage::mds::raft
