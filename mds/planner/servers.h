// The chunk servers as one pass of the planner sees them: looked up by id, with how full they are
// and the places for syncs that are left.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/ids.h"
#include "mds/planner/placement.h"

namespace pstorage::mds {

struct Recovery_limits {
  std::uint32_t syncs_per_cs = 8;  // replicas that one server pulls at a time
  std::uint32_t syncs_total = 64;
  std::uint32_t moves_per_cs = 2;  // of these for balance alone, which is in no hurry
};

struct Sync_choice {
  Chunk_id chunk;
  Version version;
  Cs_id cs;
};

/// Percent of the disk in use, 0 to 100; 100 for a server that has not said how large it is.
double percent_full(Candidate const& candidate);

/// Thread: none; lives for one pass. `candidates` must outlive it.
class Servers {
 public:
  explicit Servers(std::vector<Candidate> const& candidates);

  std::vector<Candidate> const& all() const { return candidates_; }
  /// Null: not known (any more).
  Candidate const* find(Cs_id cs) const;
  bool is_active(Cs_id cs) const;
  /// Not on its way out: neither releasing nor failed nor unknown.
  bool is_staying(Cs_id cs) const;
  /// Active and staying, or silent or slow for so short a time that it is waited for.
  bool is_expected(Cs_id cs) const;

 private:
  std::vector<Candidate> const& candidates_;
  std::map<Cs_id, Candidate const*> by_id_;
};

/// Places for syncs, shared by all parts of the planner in order of need.
class Sync_slots {
 public:
  /// `busy`: syncs under way by server.
  Sync_slots(std::map<Cs_id, std::uint32_t> busy, Recovery_limits const& limits);

  bool is_full() const { return total_ >= limits_.syncs_total; }
  bool has_slot(Cs_id cs) const { return !is_full() && count(cs) < limits_.syncs_per_cs; }
  bool has_move_slot(Cs_id cs) const { return !is_full() && count(cs) < limits_.moves_per_cs; }
  std::uint32_t count(Cs_id cs) const;
  /// Servers without a slot, to be excluded from a placement.
  std::vector<Cs_id> without_slot() const;
  void take(Chunk_id chunk, Version version, Cs_id cs);
  std::vector<Sync_choice> take_choices() { return std::move(choices_); }

 private:
  std::map<Cs_id, std::uint32_t> busy_;
  Recovery_limits const limits_;
  std::uint32_t total_ = 0;
  std::vector<Sync_choice> choices_;
};

}  // namespace pstorage::mds
