// What replay makes of a large write whose data does not fit its checksum.
#include "tests/cs/sim_store.h"

namespace pstorage::cs {
namespace {

constexpr Chunk_id chunk{0x77};
constexpr std::uint32_t chunk_size = 1u << 20;
constexpr std::uint32_t first = 100;
constexpr std::uint32_t blocks = 40;  // above 64 KiB: not in the journal
constexpr std::uint64_t stamp(std::uint32_t sequence) { return Stamp::of({1}, sequence).value; }

class Replay : public testing::Test {
 protected:
  Replay() : world_(1) {
    world_.options.idle_after = std::chrono::hours(1);  // no checkpoint: replay has to tell
    world_.must_start();
    world_.make_chunk(chunk, chunk_size);
  }
  void write(std::uint32_t block, std::uint32_t count, std::uint32_t sequence) {
    ASSERT_EQ(world_.write(chunk, block, count, stamp(sequence)), Errc::ok);
  }
  void flip(std::uint32_t block) {
    world_.disk.flip(chunk_name(chunk), data_offset(chunk_size) + block * block_bytes + 7, 4);
  }
  void restart(bool power_loss) {
    world_.die(power_loss);
    world_.must_start();
  }
  void expect_damaged(std::uint32_t block, std::uint32_t sequence) {
    Block_record const record = world_.store->block_record(world_.chunk(chunk), block);
    EXPECT_EQ(record.stamp, stamp(sequence));
    EXPECT_EQ(record.flags & block_torn, 0u) << "would be accepted where no other replica is";
    EXPECT_EQ(world_.read(chunk, block, 1).status, Errc::corrupt);
  }

  Sim_store world_;
};

TEST_F(Replay, A_bit_that_flips_in_a_flushed_large_write_is_damage) {
  for (bool const power_loss : {false, true}) {
    write(first, blocks, power_loss ? 4 : 1);
    ASSERT_EQ(world_.flush({7}), Errc::ok);
    write(0, 1, power_loss ? 5 : 2);
    ASSERT_EQ(world_.flush({7}), Errc::ok);  // takes the note along
    flip(first + 3);
    restart(power_loss);
    expect_damaged(first + 3, power_loss ? 4 : 1);
    EXPECT_TRUE(world_.holds(chunk, first + 4, stamp(power_loss ? 4 : 1)));
    // What was flushed has not been lost: the last stamp is not lowered.
    EXPECT_EQ(world_.chunk(chunk).replica.last_stamp.value, stamp(power_loss ? 5 : 2));
  }
}

TEST_F(Replay, What_was_there_before_a_flushed_large_write_does_not_come_back) {
  write(first + 3, 1, 1);
  ASSERT_EQ(world_.flush({7}), Errc::ok);
  write(first, blocks, 2);
  ASSERT_EQ(world_.flush({7}), Errc::ok);
  write(0, 1, 3);
  ASSERT_EQ(world_.flush({7}), Errc::ok);
  flip(first + 3);
  restart(true);
  expect_damaged(first + 3, 2);
}

TEST_F(Replay, What_came_after_a_damaged_large_write_counts) {
  write(first, blocks, 1);
  ASSERT_EQ(world_.flush({7}), Errc::ok);
  flip(first + 3);
  write(first + 3, 1, 2);
  ASSERT_EQ(world_.flush({7}), Errc::ok);
  restart(true);
  EXPECT_TRUE(world_.holds(chunk, first + 3, stamp(2)));
  EXPECT_TRUE(world_.holds(chunk, first + 4, stamp(1)));
}

TEST_F(Replay, A_large_write_that_was_not_flushed_is_torn) {
  write(first + 3, 1, 1);
  ASSERT_EQ(world_.flush({7}), Errc::ok);
  write(first, blocks, 2);
  world_.die(false);
  flip(first + 4);
  world_.must_start();
  EXPECT_NE(world_.store->block_record(world_.chunk(chunk), first + 4).flags & block_torn, 0u);
  EXPECT_LT(world_.chunk(chunk).replica.last_stamp.value, stamp(2));
}

TEST_F(Replay, A_removed_chunk_leaves_nothing_to_the_next_one_of_its_id) {
  write(first, blocks, 1);
  flip(first + 3);
  ASSERT_EQ(world_.flush({7}), Errc::ok);
  world_.store->remove(chunk, [](Errc) {});
  world_.run(std::chrono::milliseconds(50));
  world_.make_chunk(chunk, chunk_size);
  write(0, 1, 2);
  ASSERT_EQ(world_.flush({7}), Errc::ok);
  restart(true);
  EXPECT_TRUE(world_.holds(chunk, first + 3, 0));
  EXPECT_EQ(world_.chunk(chunk).replica.last_stamp.value, stamp(2));
}

}  // namespace
}  // namespace pstorage::cs
