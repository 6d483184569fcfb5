#include "tests/mds/raft/raft_checker.h"

#include <algorithm>
#include <utility>

namespace pstorage::mds::raft {

std::uint64_t hash_of(Log_entry const& entry) {
  std::uint64_t hash = 0xcbf29ce484222325ULL ^ static_cast<std::uint64_t>(entry.kind);
  for (auto const byte : entry.bytes.bytes()) {
    hash = (hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3ULL;
  }
  return hash;
}

void Raft_checker::fail(std::string what) {
  if (fault_.empty()) fault_ = std::move(what);
}

void Raft_checker::submitted(Member_id member, Ready const& ready) {
  if (ready.token != 0) mirrors_[member].under_way.push_back(ready);
}

void Raft_checker::persisted(Member_id member, std::uint64_t token) {
  auto& mirror = mirrors_[member];
  while (!mirror.under_way.empty() && mirror.under_way.front().token <= token) {
    write(mirror, mirror.under_way.front());
    mirror.under_way.pop_front();
  }
}

void Raft_checker::write(Mirror& mirror, Ready const& ready) {
  mirror.hard = ready.hard;
  if (ready.install) {
    mirror.base = ready.install->index;
    mirror.terms.clear();
  }
  if (ready.truncate_from != 0) {
    while (mirror.last() >= ready.truncate_from) mirror.terms.pop_back();
  }
  for (auto const& entry : ready.entries) {
    if (entry.index != mirror.last() + 1) return fail("a gap in a durable log");
    auto const before = mirror.terms.empty() ? 0 : mirror.terms.back();
    check_matching(entry, before);
    mirror.terms.push_back(entry.term);
  }
}

/// Log matching, by induction: an entry with this index and term always has these bytes and always
/// stands behind an entry of that term.
void Raft_checker::check_matching(Log_entry const& entry, std::uint64_t term_before) {
  auto const [it, is_new] =
      known_[entry.index].try_emplace(entry.term, Known{hash_of(entry), term_before});
  if (is_new) return;
  if (it->second.hash != hash_of(entry)) {
    fail("log matching: two entries at " + std::to_string(entry.index) + " of term " +
         std::to_string(entry.term));
  }
  if (it->second.term_before == 0) it->second.term_before = term_before;
  if (term_before != 0 && it->second.term_before != term_before) {
    fail("log matching: entry " + std::to_string(entry.index) + " of term " +
         std::to_string(entry.term) + " stands behind two terms");
  }
}

void Raft_checker::recovered(Member_id member, Core_state const& state) {
  auto& mirror = mirrors_[member];
  if (state.hard.term < mirror.hard.term ||
      (state.hard.term == mirror.hard.term && mirror.hard.vote &&
       state.hard.vote != mirror.hard.vote)) {
    fail(name(member) + " has forgotten its term or vote");
  }
  // Writes that were under way may have arrived, and may void what was durable before.
  auto kept_until = mirror.last();
  for (auto const& ready : mirror.under_way) {
    if (ready.install) kept_until = 0;
    if (ready.truncate_from != 0) kept_until = std::min(kept_until, ready.truncate_from - 1);
  }
  auto const last = state.base.index + state.entries.size();
  if (last < kept_until && (!mirror.is_damaged || state.hard.repair_until < kept_until)) {
    fail(name(member) + " has lost durable entries: ends at " + std::to_string(last) + ", had " +
         std::to_string(kept_until));
  }
  Mirror fresh;
  fresh.hard = state.hard;
  fresh.base = state.base.index;
  std::uint64_t before = state.base.term;
  for (auto const& entry : state.entries) {
    if (entry.index <= kept_until && entry.index > mirror.base && entry.index <= mirror.last() &&
        mirror.terms[entry.index - mirror.base - 1] != entry.term) {
      fail(name(member) + " has another durable entry at " + std::to_string(entry.index));
    }
    check_matching(entry, before);
    before = entry.term;
    fresh.terms.push_back(entry.term);
  }
  mirror = std::move(fresh);
}

void Raft_checker::look(Raft_core const& core) {
  if (core.is_leader()) check_leader(core);
  check_commit(core);
}

void Raft_checker::check_leader(Raft_core const& core) {
  auto const [it, is_new] = leaders_.try_emplace(core.term(), core.id());
  if (it->second != core.id()) {
    return fail("two leaders in term " + std::to_string(core.term()));
  }
  if (!is_new) return;
  auto const& log = core.log();
  for (auto at = committed_.lower_bound(log.base_index()); at != committed_.end(); ++at) {
    // A candidate may hear late that it had won, when a later leader has committed more.
    if (at->second.in_term >= core.term()) continue;
    if (log.term_at(at->first) == at->second.term) continue;
    return fail("leader completeness: " + name(core.id()) + " leads term " +
                std::to_string(core.term()) + " without committed entry " +
                std::to_string(at->first));
  }
}

bool Raft_checker::holds(Mirror const& mirror, std::uint64_t index, std::uint64_t term) {
  if (index <= mirror.base || index <= mirror.hard.repair_until) return true;
  return index <= mirror.last() && mirror.terms[index - mirror.base - 1] == term;
}

void Raft_checker::check_commit(Raft_core const& core) {
  auto const commit = core.commit();
  auto const& log = core.log();
  auto const term = log.term_at(commit);
  if (!term) return fail(name(core.id()) + " has committed what is not in its log");
  auto const found = committed_.find(commit);
  if (found != committed_.end()) {
    if (found->second.term != *term) {
      fail("state machines diverge: " + name(core.id()) + " has another entry committed at " +
           std::to_string(commit));
    }
    return;
  }
  if (commit <= log.base_index()) return;
  std::size_t copies = 0;
  for (auto const& member : core.configuration().members) {
    if (member.kind == Member_kind::voter && holds(mirrors_[member.id], commit, *term)) ++copies;
  }
  if (copies < core.configuration().quorum()) {
    fail("entry " + std::to_string(commit) + " is committed with " + std::to_string(copies) +
         " durable copies");
  }
  auto const known = committed();
  for (auto at = std::max(known, log.base_index()) + 1; at <= commit; ++at) {
    auto const& entry = log.at(at);
    committed_[at] = {entry.term, hash_of(entry), core.term()};
  }
}

void Raft_checker::handed_out(Member_id member, Log_entry const& entry) {
  auto const found = committed_.find(entry.index);
  if (found == committed_.end()) {
    return fail(name(member) + " hands out " + std::to_string(entry.index) + " uncommitted");
  }
  if (found->second.hash != hash_of(entry) || found->second.term != entry.term) {
    fail("state machines diverge at " + std::to_string(entry.index));
  }
  auto const& mirror = mirrors_[member];
  if (mirror.hard.repair_until == 0 && !holds(mirror, entry.index, entry.term)) {
    fail(name(member) + " hands out " + std::to_string(entry.index) + ", which is not durable");
  }
}

void Raft_checker::acknowledged(std::uint64_t index, std::string const& command) {
  Log_entry const entry{index, 0, Entry_kind::command, Slice::copy_of(as_bytes(command))};
  auto const found = committed_.find(index);
  if (found == committed_.end() || found->second.hash != hash_of(entry)) {
    fail("an acknowledged command is not at " + std::to_string(index));
  }
}

}  // namespace pstorage::mds::raft
