#include "tests/sim/history.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace pstorage::sim {
namespace {

struct Operation {
  bool is_write;
  std::uint64_t value;
  Moment start, finish;
};

/// Exhaustive search: is there an order that respects real time and in which every read returns the
/// value written last?
bool linearizable(std::vector<Operation> const& operations) {
  std::vector<std::size_t> order(operations.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  do {
    std::uint64_t current = 0;
    bool fits = true;
    for (std::size_t i = 0; fits && i < order.size(); ++i) {
      Operation const& op = operations[order[i]];
      for (std::size_t k = i + 1; k < order.size(); ++k)
        if (operations[order[k]].finish < op.start) fits = false;
      if (op.is_write)
        current = op.value;
      else if (op.value != current)
        fits = false;
    }
    if (fits) return true;
  } while (std::next_permutation(order.begin(), order.end()));
  return false;
}

TEST(History, The_zone_checker_agrees_with_exhaustive_search) {
  std::mt19937_64 random(7);
  auto const below = [&](std::uint64_t bound) { return random() % bound; };
  int not_linearizable = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<Operation> operations;
    std::size_t const writes = 1 + below(3);
    for (std::size_t i = 0; i < writes; ++i) operations.push_back({true, i + 1, 0, 0});
    std::size_t const reads = below(4);
    for (std::size_t i = 0; i < reads; ++i) operations.push_back({false, below(writes + 1), 0, 0});
    std::vector<Moment> moments;
    for (std::size_t i = 0; i < 2 * operations.size(); ++i)
      moments.push_back(static_cast<Moment>(i));
    std::shuffle(moments.begin(), moments.end(), random);
    Block_history history;
    for (std::size_t i = 0; i < operations.size(); ++i) {
      auto& op = operations[i];
      op.start = std::min(moments[2 * i], moments[2 * i + 1]);
      op.finish = std::max(moments[2 * i], moments[2 * i + 1]);
      if (op.is_write)
        history.writes.push_back({.value = op.value, .start = op.start, .finish = op.finish});
      else
        history.reads.push_back({.value = op.value, .start = op.start, .finish = op.finish});
    }
    bool const expected = linearizable(operations);
    not_linearizable += expected ? 0 : 1;
    ASSERT_EQ(check_block(history, {}).empty(), expected) << "round " << round;
  }
  EXPECT_GT(not_linearizable, 2000);
}

Block_write written(std::uint64_t value, Moment start, Moment finish, Moment durable = never,
                    std::uint32_t epoch = 1) {
  return {.value = value, .epoch = epoch, .start = start, .finish = finish, .durable = durable};
}

TEST(History, A_flushed_write_must_survive_a_power_loss) {
  Block_history history;
  history.writes = {written(1, 0, 10), written(2, 20, 30, 40)};
  history.reads = {{.value = 1, .start = 200, .finish = 210}};
  EXPECT_NE(check_block(history, {100}), "");
}

TEST(History, An_unflushed_write_may_be_lost_with_the_power_but_not_without) {
  Block_history history;
  history.writes = {written(1, 0, 10, 15), written(2, 20, 30)};
  history.reads = {{.value = 1, .start = 200, .finish = 210}};
  EXPECT_EQ(check_block(history, {100}), "");
  EXPECT_NE(check_block(history, {}), "");
}

TEST(History, A_block_must_not_change_by_itself_after_a_power_loss) {
  Block_history history;
  history.writes = {written(1, 0, 10), written(2, 20, 30)};
  history.reads = {{.value = 1, .start = 200, .finish = 210},
                   {.value = 2, .start = 220, .finish = 230}};
  EXPECT_NE(check_block(history, {100}), "");
}

TEST(History, A_late_write_of_an_old_epoch_is_found) {
  Block_history history;
  history.writes = {written(1, 0, 1000, never, 1), written(2, 100, 200, never, 2)};
  history.reads = {{.value = 2, .start = 300, .finish = 310},
                   {.value = 1, .start = 2000, .finish = 2010}};
  EXPECT_NE(check_block(history, {}), "");
}

TEST(History, Zeros_need_a_zero_that_is_not_overwritten) {
  Block_history history;
  history.writes = {written(1, 0, 10)};
  history.reads = {{.value = 0, .start = 20, .finish = 30}};
  EXPECT_NE(check_block(history, {}), "");
  history.writes.push_back({.is_zero = true, .epoch = 1, .start = 12, .finish = 15});
  EXPECT_EQ(check_block(history, {}), "");
  history.writes.push_back(written(2, 16, 18));
  EXPECT_NE(check_block(history, {}), "");
}

}  // namespace
}  // namespace pstorage::sim
