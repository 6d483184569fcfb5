// The read cache: what may be kept, what a successor finds, what is damaged or stale.
#include <gtest/gtest.h>

#include "core/client/ssd_cache.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_scheduler.h"
#include "tests/sim/sim_world.h"

namespace pstorage::client {
namespace {

constexpr std::uint64_t slot = 65536;
constexpr std::uint64_t block = 4096;

TEST(Fill_guard, What_a_change_has_overtaken_is_not_kept) {
  Fill_guard guard;
  auto const read = guard.read_begins();
  auto const change = guard.change_begins(block, block);
  guard.change_ended(change);
  guard.flushed(guard.flush_begins());  // even when it is durable before the read has ended
  EXPECT_FALSE(guard.read_ended(read, 0, 2 * block));
  EXPECT_TRUE(guard.read_ended(guard.read_begins(), 0, 2 * block));
}

TEST(Fill_guard, What_is_not_flushed_is_not_kept) {
  Fill_guard guard;
  auto const first = guard.change_begins(0, block);
  auto const second = guard.change_begins(slot, block);
  guard.change_ended(second);
  auto const flush = guard.flush_begins();  // the first is not answered: not covered
  guard.change_ended(first);
  guard.flushed(flush);
  EXPECT_FALSE(guard.read_ended(guard.read_begins(), slot, block));
  EXPECT_TRUE(guard.read_ended(guard.read_begins(), 2 * slot, block));
  guard.flushed(guard.flush_begins());
  EXPECT_TRUE(guard.read_ended(guard.read_begins(), 0, 2 * slot));
}

TEST(Fill_guard, After_a_huge_change_nothing_is_kept_until_a_flush) {
  Fill_guard guard;
  guard.change_ended(guard.change_begins(0, 1ull << 40));
  EXPECT_FALSE(guard.read_ended(guard.read_begins(), 1ull << 45, block));
  guard.flushed(guard.flush_begins());
  EXPECT_TRUE(guard.read_ended(guard.read_begins(), 0, block));
}

class Quiet_log final : public Log {
 public:
  void write(Log_level level, std::string_view, Fields) override {
    if (level == Log_level::error) ++errors;
  }
  int errors = 0;
};

class Ssd_cache_test : public testing::Test {
 protected:
  void open(std::uint64_t slots = 4, std::string const& boot = "boot1",
            std::string const& uuid = "uuid1") {
    cache.reset();
    disk.kill();
    auto opened =
        Ssd_cache::open(std::move(disk.open("cache", {.create = true})).value(),
                        {.cluster_uuid = uuid, .boot_id = boot, .size_bytes = slots * slot}, log);
    ASSERT_TRUE(opened.has_value());
    cache = std::move(opened).value();
  }
  static Slice blocks(std::size_t count, unsigned char value) {
    Slice data = Slice::allocate(count * block);
    std::memset(data.data(), value, data.size());
    return data;
  }
  /// The first byte of what is cached there; -1: nothing.
  int look(Cache_key key, std::uint64_t offset, std::uint64_t length = block) {
    int found = -2;
    cache->read(key, offset, length, [&](std::optional<Slice> data) {
      found = data ? static_cast<int>(*data->data()) : -1;
      if (data) {
        EXPECT_EQ(data->size(), length);
      }
    });
    while (found == -2 && scheduler.step()) {
    }
    return found;
  }

  sim::Sim_random random{1};
  sim::Event_queue scheduler;
  sim::Sim_disk disk{scheduler, random};
  Quiet_log log;
  std::unique_ptr<Ssd_cache> cache;
};

TEST_F(Ssd_cache_test, Whole_blocks_are_kept_and_found_again_in_any_part) {
  open();
  auto const key = cache->file_opened({7}, {}, Epoch{1});
  cache->fill(key, 100, {blocks(2, 1), blocks(2, 2)});  // neither end is at a block
  EXPECT_FALSE(cache->has(key, 0, block));
  EXPECT_EQ(look(key, block + 10, 2 * block - 20), 1);
  EXPECT_EQ(look(key, 3 * block, 100), 2);
  EXPECT_FALSE(cache->has(key, 4 * block, 1));
  cache->fill(key, slot - block, {blocks(2, 3)});
  EXPECT_EQ(look(key, slot - 1, 2), 3);
}

TEST_F(Ssd_cache_test, What_is_forgotten_stays_forgotten_after_a_kill) {
  open();
  auto const key = cache->file_opened({7}, {}, Epoch{1});
  cache->fill(key, 0, {blocks(4, 1)});
  cache->forget(key, block + 1, 1);
  open();
  auto const same = cache->file_opened({7}, Epoch{1}, Epoch{1});
  EXPECT_EQ(same, key);
  EXPECT_EQ(look(same, 0), 1);
  EXPECT_EQ(look(same, block), -1);
  cache->forget(same, 0, 1ull << 50);
  EXPECT_EQ(look(same, 0), -1);
}

TEST_F(Ssd_cache_test, After_another_writer_nothing_of_the_file_is_believed) {
  open();
  auto const key = cache->file_opened({7}, {}, Epoch{1});
  cache->fill(key, 0, {blocks(1, 1)});
  auto const other = cache->file_opened({7}, Epoch{2}, Epoch{3});
  EXPECT_NE(other, key);
  EXPECT_EQ(look(other, 0), -1);
  EXPECT_NE(cache->file_opened({7}, Epoch{}, Epoch{4}), other);  // whose writer died
}

TEST_F(Ssd_cache_test, A_power_loss_empties_it_but_not_after_a_clean_end) {
  open();
  auto key = cache->file_opened({7}, {}, Epoch{1});
  cache->fill(key, 0, {blocks(1, 1)});
  cache->close();
  open(4, "boot2");
  key = cache->file_opened({7}, Epoch{1}, Epoch{2});
  EXPECT_EQ(look(key, 0), 1);
  open(4, "boot3");
  EXPECT_EQ(look(cache->file_opened({7}, Epoch{2}, Epoch{3}), 0), -1);
}

TEST_F(Ssd_cache_test, That_of_another_cluster_or_size_is_made_anew) {
  open();
  cache->fill(cache->file_opened({7}, {}, Epoch{1}), 0, {blocks(1, 1)});
  open(5);
  EXPECT_EQ(cache->slots_used(), 0u);
  cache->fill(cache->file_opened({7}, {}, Epoch{1}), 0, {blocks(1, 1)});
  open(5, "boot1", "uuid2");
  EXPECT_EQ(cache->slots_used(), 0u);
}

TEST_F(Ssd_cache_test, A_flipped_bit_is_never_served) {
  open();
  auto const key = cache->file_opened({7}, {}, Epoch{1});
  cache->fill(key, 0, {blocks(16, 1)});
  auto const size = std::move(disk.open("cache", {})).value()->size().value();
  disk.flip("cache", size - 4 * slot + 5, 1);
  disk.flip("cache", size - 3 * slot + 5, 1);
  disk.flip("cache", size - 2 * slot + 5, 1);
  disk.flip("cache", size - 1 * slot + 5, 1);
  EXPECT_EQ(look(key, 0), -1);
  EXPECT_EQ(cache->counters().damaged, 1u);
}

TEST_F(Ssd_cache_test, The_longest_unused_makes_room) {
  open(2);
  auto const key = cache->file_opened({7}, {}, Epoch{1});
  for (std::uint64_t i = 0; i < 10; ++i) {
    cache->fill(key, i * slot, {blocks(1, static_cast<unsigned char>(i))});
    EXPECT_EQ(look(key, i * slot), static_cast<int>(i));
  }
  EXPECT_EQ(cache->slots_used(), 2u);
}

TEST_F(Ssd_cache_test, A_failing_disk_switches_it_off) {
  open();
  auto const key = cache->file_opened({7}, {}, Epoch{1});
  cache->fill(key, 0, {blocks(1, 1)});
  disk.set_fault([](sim::Disk_call call, std::string const&) -> std::optional<std::error_code> {
    if (call == sim::Disk_call::write) return std::make_error_code(std::errc::io_error);
    return std::nullopt;
  });
  cache->fill(key, slot, {blocks(1, 1)});
  EXPECT_EQ(log.errors, 1);
  EXPECT_EQ(look(key, 0), -1);
  EXPECT_EQ(cache->file_opened({8}, {}, Epoch{2}), 0u);
  disk.set_fault(nullptr);
  open();
  EXPECT_EQ(cache->slots_used(), 0u);  // what could not be kept up to date is gone
}

}  // namespace
}  // namespace pstorage::client
