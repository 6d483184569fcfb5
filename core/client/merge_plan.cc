#include "core/client/merge_plan.h"

#include <algorithm>

#include "core/assert.h"

namespace pstorage::client {
namespace {

bool is_corrupt(Block_record const& record) { return (record.flags & block_corrupt) != 0; }
bool is_torn(Block_record const& record) { return (record.flags & block_torn) != 0; }
bool is_hole(Block_record const& record) { return (record.flags & block_hole) != 0; }

/// Do the two replicas hold the same write of the block? The hole flag may differ for equal
/// content: a replica may have stored zeros as data.
bool same(Block_record const& a, Block_record const& b) {
  return !is_corrupt(a) && !is_corrupt(b) && a.stamp == b.stamp && a.crc == b.crc;
}

/// How many replicas hold what `record` says.
std::size_t holders(std::vector<std::vector<Block_record>> const& tables, std::uint32_t block,
                    Block_record const& record) {
  return static_cast<std::size_t>(
      std::count_if(tables.begin(), tables.end(), [&](std::vector<Block_record> const& table) {
        return !table.empty() && same(table[block], record);
      }));
}

/// A write has one content: where the same stamp names two, one was changed behind our back, and
/// more replicas have kept the one that was acknowledged. Of two without it, a torn one can still
/// be accepted, a rotten one cannot.
bool is_better(std::vector<std::vector<Block_record>> const& tables, std::uint32_t block,
               Block_record const& record, Block_record const& best) {
  if (record.stamp != best.stamp) return record.stamp > best.stamp;
  if (is_corrupt(record)) return is_torn(record) && !is_torn(best);
  if (record.crc == best.crc) return false;
  return holders(tables, block, record) > holders(tables, block, best);
}

/// What happens to one block; targets == 0: nothing.
Merge_step plan_block(std::vector<std::vector<Block_record>> const& tables, std::uint32_t block) {
  int best = -1;
  int best_corrupt = -1;
  for (std::size_t i = 0; i < tables.size(); ++i) {
    if (tables[i].empty()) continue;
    Block_record const& record = tables[i][block];
    int& place = is_corrupt(record) ? best_corrupt : best;
    bool const better = place < 0 || is_better(tables, block, record,
                                               tables[static_cast<std::size_t>(place)][block]);
    if (better) place = static_cast<int>(i);
  }
  Merge_step step{.first = block, .count = 1};
  if (best < 0) {
    if (best_corrupt < 0) return step;
    step.accept = true;
    best = best_corrupt;
  }
  step.source = static_cast<std::uint32_t>(best);
  Block_record const& winner = tables[step.source][block];
  step.hole = !step.accept && is_hole(winner);
  for (std::uint32_t i = 0; i < tables.size(); ++i)
    if (i != step.source && !tables[i].empty() && (step.accept || !same(tables[i][block], winner)))
      step.targets |= 1u << i;
  // A lone replica without valid data has nobody to differ from and must be settled all the same.
  if (step.accept) step.targets |= 1u << step.source;
  return step;
}

bool joins(Merge_step const& run, Merge_step const& next) {
  return run.source == next.source && run.targets == next.targets && run.hole == next.hole &&
         run.accept == next.accept && run.first + run.count == next.first;
}

}  // namespace

std::vector<Merge_step> plan_merge(std::vector<std::vector<Block_record>> const& tables,
                                   std::uint32_t run_max) {
  std::size_t blocks = 0;
  for (auto const& table : tables) {
    PS_ASSERT(table.empty() || blocks == 0 || table.size() == blocks);
    if (!table.empty()) blocks = table.size();
  }
  std::vector<Merge_step> steps;
  for (std::uint32_t block = 0; block < blocks; ++block) {
    Merge_step const step = plan_block(tables, block);
    if (step.targets == 0) continue;
    if (!steps.empty() && joins(steps.back(), step) && steps.back().count < run_max)
      ++steps.back().count;
    else
      steps.push_back(step);
  }
  return steps;
}

}  // namespace pstorage::client
