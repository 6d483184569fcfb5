// What the leader remembers between two passes of the planner: how far it has looked, which moves
// it has decided, how fast repairs go. Lost with the process; nothing depends on it but speed.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "core/env/clock.h"
#include "mds/planner/balance.h"
#include "mds/planner/recovery.h"

namespace pstorage::mds {

struct Healing {
  struct Timed_move {
    Move move;
    Time_point seen;  // last time it was under way
  };
  std::map<int, std::uint64_t> state_cursor;  // Chunk_state -> last chunk looked at
  std::map<Cs_id, std::uint64_t> server_cursor;
  std::vector<Timed_move> moves;
  Time_point last_balance{};

  std::uint64_t syncs_done = 0;  // since the start
  std::uint64_t syncs_sampled = 0;
  Time_point last_sample{};
  double syncs_a_second = 0;  // smoothed over about ten seconds

  /// Takes a sample of the speed of repairs, at most once a second.
  void sample(Time_point now);
  /// Moves that free space does not show yet, as far as they are not forgotten.
  std::vector<Move> pending_moves() const;
};

}  // namespace pstorage::mds
