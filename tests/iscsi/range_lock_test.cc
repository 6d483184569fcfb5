#include "iscsi/range_lock.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>

namespace pstorage::iscsi {
namespace {

Lock_range read_of(std::uint64_t begin, std::uint64_t end) { return {begin, end, false, false}; }
Lock_range write_of(std::uint64_t begin, std::uint64_t end) { return {begin, end, true, false}; }

TEST(Range_lock, Reads_share_and_writes_do_not) {
  Range_lock lock;
  auto a = read_of(0, 8), b = read_of(4, 12), c = write_of(8, 16), d = write_of(16, 24);
  EXPECT_TRUE(lock.acquire(a));
  EXPECT_TRUE(lock.acquire(b));
  EXPECT_FALSE(lock.acquire(c));  // overlaps b
  EXPECT_TRUE(lock.acquire(d));
  std::vector<Lock_range*> granted;
  lock.release(a, granted);
  EXPECT_TRUE(granted.empty());
  lock.release(b, granted);
  EXPECT_EQ(granted, std::vector<Lock_range*>{&c});
}

TEST(Range_lock, A_later_read_does_not_overtake_a_waiting_write) {
  Range_lock lock;
  auto first = read_of(0, 8), write = write_of(0, 8), second = read_of(0, 8);
  lock.acquire(first);
  EXPECT_FALSE(lock.acquire(write));
  EXPECT_FALSE(lock.acquire(second));
  std::vector<Lock_range*> granted;
  lock.release(first, granted);
  EXPECT_EQ(granted, std::vector<Lock_range*>{&write});
  granted.clear();
  lock.release(write, granted);
  EXPECT_EQ(granted, std::vector<Lock_range*>{&second});
}

TEST(Range_lock, Never_two_conflicting_holders_and_nobody_waits_for_ever) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    Range_lock lock;
    std::vector<std::unique_ptr<Lock_range>> ranges;
    std::vector<Lock_range*> holders, granted;
    for (int i = 0; i < 40; ++i) {
      auto const begin = random() % 64;
      ranges.push_back(std::make_unique<Lock_range>(
          Lock_range{begin, begin + 1 + random() % 16, random() % 2 == 0, false}));
      if (lock.acquire(*ranges.back())) holders.push_back(ranges.back().get());
    }
    std::size_t ended = 0;
    while (!holders.empty()) {
      for (auto const* a : holders) {
        for (auto const* b : holders) {
          bool const clash = a != b && (a->is_exclusive || b->is_exclusive) && a->begin < b->end &&
                             b->begin < a->end;
          ASSERT_FALSE(clash);
        }
      }
      auto const victim = random() % holders.size();
      auto* const range = holders[victim];
      holders.erase(holders.begin() + static_cast<std::ptrdiff_t>(victim));
      granted.clear();
      lock.release(*range, granted);
      holders.insert(holders.end(), granted.begin(), granted.end());
      ++ended;
    }
    EXPECT_EQ(ended, ranges.size());
    EXPECT_TRUE(lock.is_empty());
  }
}

}  // namespace
}  // namespace pstorage::iscsi
