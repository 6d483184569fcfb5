// Linearizable reads without a log entry: ReadIndex, asked of the leader by any member.
#include <algorithm>
#include <utility>

#include "core/mutant.h"
#include "mds/raft/raft_core.h"

namespace pstorage::mds::raft {
namespace {

constexpr std::size_t reads_max = 4096;  // of others, waiting for a round

}  // namespace

Result<std::uint64_t> Raft_core::read() {
  if (!leader_) return Errc::unavailable;
  auto const id = ++next_read_;
  if (is_leader()) {
    reads_.push_back({options_.id, id, 0, 0});
  } else {
    own_reads_.emplace(id, 0);
    send({.kind = Message_kind::read, .to = leader_, .context = id});
  }
  return id;
}

void Raft_core::on_read(Raft_message const& message) {
  if (!is_leader() || reads_.size() >= reads_max) {
    send({.kind = Message_kind::read_reply,
          .to = message.from,
          .context = message.context,
          .is_reject = true});
    return;
  }
  reads_.push_back({message.from, message.context, 0, 0});
}

void Raft_core::on_read_reply(Raft_message const& message) {
  if (own_reads_.erase(message.context) == 0) return;
  read_states_.push_back({message.context, !message.is_reject, message.index});
}

/// A round of heartbeats for the reads that came since the last one.
void Raft_core::send_heartbeats() {
  if (!has_committed_own() && !PS_MUTANT(read_before_the_first_commit)) return;
  bool is_needed = false;
  for (auto& read : reads_) {
    if (read.round != 0) continue;
    // Our commit index covers everything acknowledged before now, if we still lead. The heartbeats
    // that leave after this find out.
    read.index = hard_.commit;
    read.round = PS_MUTANT(an_old_heartbeat_confirms_a_read) ? round_ : round_ + 1;
    is_needed = true;
  }
  if (!is_needed) return;
  ++round_;
  for (auto const& [member, progress] : progress_) {
    send({.kind = Message_kind::heartbeat,
          .to = member,
          .commit = std::min(hard_.commit, progress.match()),
          .context = round_});
  }
  answer_reads();
}

void Raft_core::answer_reads() {
  if (reads_.empty()) return;
  auto const& configuration = log_.configuration();
  std::vector<std::uint64_t> rounds;
  for (auto const& member : configuration.members) {
    if (member.kind != Member_kind::voter) continue;
    rounds.push_back(member.id == options_.id ? round_ : progress_.at(member.id).round_acked);
  }
  std::sort(rounds.begin(), rounds.end(), std::greater<>());
  auto const confirmed =
      PS_MUTANT(read_without_a_quorum) ? round_ : rounds[configuration.quorum() - 1];
  auto const done = std::stable_partition(
      reads_.begin(), reads_.end(),
      [confirmed](auto const& read) { return read.round == 0 || read.round > confirmed; });
  for (auto it = done; it != reads_.end(); ++it) finish_read(*it);
  reads_.erase(done, reads_.end());
}

void Raft_core::finish_read(Pending_read const& read) {
  if (read.from == options_.id) {
    read_states_.push_back({read.id, true, read.index});
  } else {
    send({.kind = Message_kind::read_reply,
          .to = read.from,
          .index = read.index,
          .context = read.id});
  }
}

void Raft_core::fail_reads() {
  for (auto const& read : reads_) {
    if (read.from == options_.id) read_states_.push_back({read.id, false, 0});
  }
  reads_.clear();
  for (auto const& [id, ticks] : own_reads_) read_states_.push_back({id, false, 0});
  own_reads_.clear();
}

void Raft_core::expire_reads() {
  for (auto it = own_reads_.begin(); it != own_reads_.end();) {
    if (++it->second <= options_.election_ticks) {
      ++it;
      continue;
    }
    read_states_.push_back({it->first, false, 0});
    it = own_reads_.erase(it);
  }
}

}  // namespace pstorage::mds::raft
