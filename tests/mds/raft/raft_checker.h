// What must hold in a Raft cluster after every event, checked on all members' durable logs.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <unordered_map>

#include "mds/raft/raft_core.h"

namespace pstorage::mds::raft {

std::uint64_t hash_of(Log_entry const& entry);

/// Fed by whoever drives the members; remembers the first thing that was wrong.
class Raft_checker {
 public:
  /// `member` has been given `ready` to make durable.
  void submitted(Member_id member, Ready const& ready);
  /// Everything submitted by `member` up to the Ready with `token` is durable.
  void persisted(Member_id member, std::uint64_t token);
  /// `member` has come back with `state`: nothing durable may be missing.
  void recovered(Member_id member, Core_state const& state);
  /// Faults were injected that `member` cannot hide: `recovered` accepts what is missing, provided
  /// that the member knows.
  void damaged(Member_id member) { mirrors_[member].is_damaged = true; }
  /// After every event on `member`.
  void look(Raft_core const& core);
  void handed_out(Member_id member, Log_entry const& entry);
  /// A client was told that its command stands at `index`.
  void acknowledged(std::uint64_t index, std::string const& command);
  void fail(std::string what);

  std::string const& fault() const { return fault_; }
  std::uint64_t committed() const { return committed_.empty() ? 0 : committed_.rbegin()->first; }

 private:
  struct Mirror {  // the durable log of a member
    Hard_state hard;
    std::uint64_t base = 0;
    std::deque<std::uint64_t> terms;  // behind base
    std::deque<Ready> under_way;
    bool is_damaged = false;
    std::uint64_t last() const { return base + terms.size(); }
  };
  struct Committed {
    std::uint64_t term = 0;
    std::uint64_t hash = 0;
    std::uint64_t in_term = 0;  // of the leader that committed it
  };
  struct Known {
    std::uint64_t hash = 0;
    std::uint64_t term_before = 0;
  };

  static std::string name(Member_id member) { return "member " + std::to_string(member.value); }
  static bool holds(Mirror const& mirror, std::uint64_t index, std::uint64_t term);
  void write(Mirror& mirror, Ready const& ready);
  void check_matching(Log_entry const& entry, std::uint64_t term_before);
  void check_leader(Raft_core const& core);
  void check_commit(Raft_core const& core);

  std::string fault_;
  std::map<Member_id, Mirror> mirrors_;
  std::map<std::uint64_t, Member_id> leaders_;                     // by term
  std::map<std::uint64_t, Committed> committed_;                   // by index
  std::map<std::uint64_t, std::map<std::uint64_t, Known>> known_;  // by index, then term
};

}  // namespace pstorage::mds::raft
