// Reconciliation of the replicas of a chunk after a take-over (pure): which block comes from where.
// DESIGN 5 "Client state lost": each block says which write it holds, so tables are enough.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/net/message.h"

namespace pstorage::client {

/// Copy blocks [first, first + count) from replica `source` to every replica in `targets`.
struct Merge_step {
  std::uint32_t first = 0;
  std::uint32_t count = 0;
  std::uint32_t source = 0;
  std::uint32_t targets = 0;  // bit a replica
  bool hole = false;          // the source's blocks are holes: nothing to read
  bool accept = false;        // nobody has valid data: the source first takes what it has
};

/// `tables`: one per replica, all of the same length (blocks of a chunk); replicas without a table
/// are empty and neither source nor target. For each block the valid record with the highest stamp
/// wins (with equal stamps the content that most replicas hold, then the lowest replica index).
/// Where none is valid, the source is the one with the highest stamp, a torn one before a rotten
/// one. Replicas whose record differs are targets. Runs are joined up to `run_max` blocks. Source:
/// DESIGN 5.
std::vector<Merge_step> plan_merge(std::vector<std::vector<Block_record>> const& tables,
                                   std::uint32_t run_max);

/// A reconciliation under way.
struct Merge_state {
  std::vector<std::vector<Block_record>> tables;  // by replica index
  std::uint32_t tables_missing = 0;               // bit a replica: asked, not answered
  std::vector<Merge_step> steps;
  std::size_t step = 0;
  std::uint32_t writing = 0;  // bit a replica: repair sent, not answered
  bool planned = false;
};

}  // namespace pstorage::client
