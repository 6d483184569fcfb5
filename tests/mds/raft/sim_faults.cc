// Who breaks what, and when: at random, and aimed at the moments that matter.
#include <algorithm>
#include <utility>

#include "tests/mds/raft/raft_sim.h"

namespace pstorage::mds::raft {
namespace {

using std::chrono::milliseconds;

}  // namespace

bool Raft_sim::strikes(Raft_core const& core, Ready const& ready) {
  if (is_calm_ || plan_.strike_percent == 0) return false;
  bool const is_vote = std::any_of(
      ready.messages_after.begin(), ready.messages_after.end(), [](auto const& message) {
        return message.kind == Message_kind::vote ||
               (message.kind == Message_kind::vote_reply && !message.is_reject);
      });
  bool const is_first =
      core.is_leader() && !ready.entries.empty() && ready.entries.front().kind == Entry_kind::begin;
  bool const is_conflict = ready.truncate_from != 0 || ready.install;
  if (!is_vote && !is_first && !is_conflict) return false;
  if (!random_.percent(plan_.strike_percent)) return false;
  auto const id = core.id();
  trace(id, is_vote ? "struck after a vote" : is_first ? "struck as leader" : "struck in a cut");
  queue_.at(random_.between(milliseconds(1), milliseconds(800)), [this, id] {
    auto& process = *processes_.at(id);
    if (!process.is_up() && !gone_.contains(id)) process.start();
  });
  return true;
}

void Raft_sim::nemesis() {
  if (is_calm_) return;
  queue_.at(random_.between(milliseconds(50), milliseconds(400)), [this] { nemesis(); });
  if (plan_.has_changes && random_.percent(40)) change_members();
  if (plan_.has_changes && random_.percent(10)) change_members();  // both at once
  if (!random_.percent(plan_.fault_percent)) return;
  auto* const process = random_.percent(40) && leader() != nullptr ? leader() : any_up();
  if (process == nullptr) return;
  switch (random_.below(10)) {
    case 0:
    case 1:
      return crash_for_a_while(*process);
    case 2:
    case 3:
      return partition();
    case 4:
      ++epoch_;
      return cuts_.clear();
    case 5:
      trace(process->id(), "disk stalls");
      return process->disk().stall_until(queue_.now() +
                                         random_.between(milliseconds(20), milliseconds(900)));
    case 6: {
      auto* const heir = any_up();
      if (heir != nullptr && leader() != nullptr) leader()->transfer(heir->id());
      return;
    }
    case 8:
      return fill_disk(*process);
    case 9:
      return pause(process->id());
    case 7:  // everybody at once
      if (!random_.percent(20)) return;
      for (auto& [id, other] : processes_) crash_for_a_while(*other);
      return;
  }
}

void Raft_sim::crash_for_a_while(Raft_process& process) {
  auto const id = process.id();
  if (!process.is_up()) return;
  process.crash();
  if (gone_.empty() && !has_rotten_ && random_.percent(10)) {
    if (plan_.has_changes && random_.percent(50)) return replace_wiped(process);
    has_rotten_ = process.rot();
  }
  queue_.at(random_.between(milliseconds(1), milliseconds(1500)), [this, id] {
    auto& other = *processes_.at(id);
    if (!other.is_up() && !gone_.contains(id)) {
      trace(id, "starts");
      other.start();
    }
  });
}

/// The disk takes no more than now, for a while.
void Raft_sim::fill_disk(Raft_process& process) {
  trace(process.id(), "disk is full");
  process.disk().set_capacity(process.disk().used_bytes() + random_.below(128u << 10));
  queue_.at(random_.between(milliseconds(100), milliseconds(3000)), [this, id = process.id()] {
    processes_.at(id)->disk().set_capacity(sim::unlimited_bytes);
  });
}

/// The process is not scheduled: what arrives meanwhile finds it as it was, all at once.
void Raft_sim::pause(Member_id id) {
  trace(id, "pauses");
  paused_[id] = queue_.now() + random_.between(milliseconds(50), milliseconds(1500));
}

bool Raft_sim::is_paused(Member_id id, Duration& left) const {
  auto const found = paused_.find(id);
  if (found == paused_.end() || found->second <= queue_.now()) return false;
  left = found->second - queue_.now();
  return true;
}

/// The repository is lost: a new one gets a new id and joins; the old one is to be removed.
void Raft_sim::replace_wiped(Raft_process& process) {
  trace(process.id(), "wiped");
  gone_.insert(process.id());
}

void Raft_sim::partition() {
  ++epoch_;
  cuts_.clear();
  std::vector<Member_id> members;
  for (auto const& [id, process] : processes_) members.push_back(id);
  auto const one = members[random_.below(members.size())];
  auto const kind = random_.below(5);
  trace(one, "partition of kind " + std::to_string(kind));
  for (auto const a : members) {
    for (auto const b : members) {
      if (a == b) continue;
      bool is_cut = false;
      switch (kind) {
        case 0:  // alone
          is_cut = a == one || b == one;
          break;
        case 1:  // hears nobody
          is_cut = b == one;
          break;
        case 2:  // nobody hears it
          is_cut = a == one;
          break;
        case 3:  // two halves
          is_cut = a.value % 2 != b.value % 2;
          break;
        case 4:  // single directions at random
          is_cut = random_.percent(30);
          break;
      }
      if (is_cut) cuts_.emplace(a, b);
    }
  }
}

void Raft_sim::change_members() {
  auto* const first = leader();
  if (first == nullptr) return;
  auto const& configuration = first->core().configuration();
  for (auto const& member : configuration.members) {
    if (gone_.contains(member.id)) {
      trace(member.id, "remove the wiped one");
      (void)first->change({Change::Kind::remove, member.id, ""});
      return;
    }
    if (member.kind == Member_kind::learner) {
      (void)first->change({Change::Kind::promote, member.id, ""});
      return;
    }
  }
  auto const voters = configuration.voters();
  auto const& members = configuration.members;
  if (voters > 2 && (voters >= 5 || random_.percent(40))) {
    (void)first->change({Change::Kind::remove, members[random_.below(members.size())].id, ""});
  } else if (processes_.size() < 12) {
    Member_id const id{next_member_};
    if (!first->change({Change::Kind::add_learner, id, ""}).has_value()) return;
    ++next_member_;
    trace(id, "joins");
    add_process(id, {});
  }
}

}  // namespace pstorage::mds::raft
