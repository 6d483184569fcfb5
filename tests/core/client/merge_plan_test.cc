#include "core/client/merge_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace pstorage::client {
namespace {

using Table = std::vector<Block_record>;

Block_record record(std::uint64_t stamp, std::uint32_t flags = 0) {
  return {.stamp = stamp, .crc = static_cast<std::uint32_t>(stamp * 7 + 1), .flags = flags};
}

TEST(Merge_plan, Equal_tables_need_nothing) {
  Table const table{record(1), record(0, block_hole), record(5)};
  EXPECT_TRUE(plan_merge({table, table, table}, 256).empty());
}

TEST(Merge_plan, The_highest_stamp_wins_block_by_block) {
  auto const steps = plan_merge({{record(3), record(9)}, {record(4), record(2)}}, 256);
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_EQ(steps[0].source, 1u);
  EXPECT_EQ(steps[0].targets, 1u);
  EXPECT_EQ(steps[1].source, 0u);
  EXPECT_EQ(steps[1].targets, 2u);
}

TEST(Merge_plan, A_corrupt_block_never_wins_whatever_its_stamp) {
  auto const steps = plan_merge({{record(9, block_corrupt)}, {record(2)}, {record(2)}}, 256);
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].source, 1u);
  EXPECT_EQ(steps[0].targets, 1u);
  EXPECT_FALSE(steps[0].accept);
}

TEST(Merge_plan, A_block_that_is_corrupt_everywhere_is_accepted_from_the_most_advanced) {
  auto const steps = plan_merge(
      {{record(3, block_corrupt)}, {record(9, block_corrupt)}, {record(5, block_corrupt)}}, 256);
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_TRUE(steps[0].accept);
  EXPECT_EQ(steps[0].source, 1u);
}

TEST(Merge_plan, Of_a_write_that_is_torn_here_and_rotten_there_the_torn_one_is_accepted) {
  constexpr std::uint32_t torn = block_corrupt | block_torn;
  auto const steps = plan_merge({{record(9, block_corrupt)}, {record(9, torn)}}, 256);
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_TRUE(steps[0].accept);
  EXPECT_EQ(steps[0].source, 1u);
  EXPECT_EQ(plan_merge({{record(9, block_corrupt)}, {record(8, torn)}}, 256).at(0).source, 0u);
  EXPECT_EQ(plan_merge({{record(9, torn)}, {record(8)}}, 256).at(0).source, 1u);
}

TEST(Merge_plan, A_lone_replica_settles_its_torn_blocks) {
  auto const steps = plan_merge({{record(3, block_corrupt), record(4)}}, 256);
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_TRUE(steps[0].accept);
  EXPECT_EQ(steps[0].first, 0u);
}

// A replica whose content was changed with its checksum, behind our back.
TEST(Merge_plan, Of_one_write_with_two_contents_most_replicas_know_the_right_one) {
  auto changed = record(9);
  changed.crc ^= 1;
  auto const steps = plan_merge({{changed}, {record(9)}, {record(9)}}, 256);
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].source, 1u);
  EXPECT_EQ(steps[0].targets, 1u);
  // One against one: the first, and all agree at least. A later write always wins.
  EXPECT_EQ(plan_merge({{changed}, {record(9)}}, 256).at(0).source, 0u);
  EXPECT_EQ(plan_merge({{changed}, {record(8)}, {record(8)}}, 256).at(0).source, 0u);
  EXPECT_EQ(plan_merge({{record(9, block_corrupt)}, {changed}, {record(9)}}, 256).at(0).source, 1u);
}

TEST(Merge_plan, A_hole_with_a_later_stamp_overrides_data) {
  auto const steps = plan_merge({{record(8, block_hole)}, {record(7)}}, 256);
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_TRUE(steps[0].hole);
  EXPECT_EQ(steps[0].targets, 2u);
}

TEST(Merge_plan, Replicas_without_a_table_are_neither_source_nor_target) {
  auto const steps = plan_merge({{}, {record(1)}, {record(2)}}, 256);
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].source, 2u);
  EXPECT_EQ(steps[0].targets, 2u);
}

TEST(Merge_plan, Runs_are_joined_up_to_the_limit) {
  Table const newer(10, record(2)), older(10, record(1));
  auto const steps = plan_merge({newer, older}, 4);
  ASSERT_EQ(steps.size(), 3u);
  EXPECT_EQ(steps[0].count, 4u);
  EXPECT_EQ(steps[2].count, 2u);
  EXPECT_EQ(steps[2].first, 8u);
}

TEST(Merge_plan, Carrying_out_any_plan_makes_all_replicas_equal_to_the_newest_valid_blocks) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 2000; ++round) {
    std::size_t const replicas = 1 + random() % 4, blocks = 1 + random() % 12;
    std::vector<Table> tables(replicas, Table(blocks));
    for (auto& table : tables)
      for (auto& one : table) one = record(random() % 4, random() % 5 == 0 ? block_corrupt : 0u);
    auto merged = tables;
    for (auto const& step : plan_merge(tables, 3))
      for (std::uint32_t block = step.first; block < step.first + step.count; ++block) {
        Block_record winner = merged[step.source][block];
        winner.flags &= ~static_cast<std::uint32_t>(block_corrupt);
        for (std::size_t i = 0; i < replicas; ++i)
          if (i == step.source || (step.targets >> i & 1) != 0) merged[i][block] = winner;
      }
    for (std::size_t block = 0; block < blocks; ++block) {
      std::uint64_t newest = 0;
      for (auto const& table : tables)
        if ((table[block].flags & block_corrupt) == 0)
          newest = std::max(newest, table[block].stamp);
      for (auto const& table : merged) {
        EXPECT_EQ(table[block].stamp, merged[0][block].stamp) << "round " << round;
        EXPECT_EQ(table[block].flags & block_corrupt, 0u);
        EXPECT_GE(table[block].stamp, newest);
      }
    }
  }
}

}  // namespace
}  // namespace pstorage::client
