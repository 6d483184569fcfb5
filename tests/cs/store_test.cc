#include "cs/store.h"

#include "tests/cs/sim_store.h"

namespace pstorage::cs {
namespace {

constexpr Chunk_id chunk_a{0x1122}, chunk_b{0x3344};
constexpr std::uint64_t stamp(std::uint32_t sequence) { return Stamp::of({1}, sequence).value; }

TEST(Store, A_written_block_reads_back_at_once_and_after_it_was_applied) {
  Sim_store world(1);
  world.must_start();
  world.make_chunk(chunk_a);
  EXPECT_EQ(world.write(chunk_a, 3, 2, stamp(1)), Errc::ok);
  EXPECT_TRUE(world.holds(chunk_a, 3, stamp(1)));
  EXPECT_TRUE(world.holds(chunk_a, 5, 0));
  world.run(std::chrono::seconds(10));
  EXPECT_EQ(world.store->staged_bytes(), 0u);
  EXPECT_TRUE(world.holds(chunk_a, 4, stamp(1)));
  Read_result const all = world.read(chunk_a, 0, 8);
  EXPECT_EQ(all.status, Errc::ok);
  EXPECT_EQ(load_le<std::uint32_t>(all.meta.data()), crc32c_of_zero_block);
}

TEST(Store, A_flushed_write_survives_power_loss) {
  Sim_store world(2);
  world.must_start();
  world.make_chunk(chunk_a);
  EXPECT_EQ(world.write(chunk_a, 0, 4, stamp(1)), Errc::ok);
  EXPECT_EQ(world.write(chunk_a, 100, 40, stamp(2)), Errc::ok);
  EXPECT_EQ(world.flush({7}), Errc::ok);
  world.die(true);
  world.must_start();
  for (std::uint32_t i = 0; i < 4; ++i) EXPECT_TRUE(world.holds(chunk_a, i, stamp(1)));
  for (std::uint32_t i = 100; i < 140; ++i) EXPECT_TRUE(world.holds(chunk_a, i, stamp(2)));
  EXPECT_EQ(world.chunk(chunk_a).replica.last_stamp.value, stamp(2));
  EXPECT_TRUE(world.chunk(chunk_a).replica.unclean);
}

TEST(Store, An_acknowledged_write_survives_the_death_of_the_process) {
  Sim_store world(3);
  world.must_start();
  world.make_chunk(chunk_a);
  EXPECT_EQ(world.write(chunk_a, 9, 1, stamp(1)), Errc::ok);
  EXPECT_EQ(world.write(chunk_a, 20, 30, stamp(2)), Errc::ok);
  world.die(false);
  world.must_start();
  EXPECT_TRUE(world.holds(chunk_a, 9, stamp(1)));
  EXPECT_TRUE(world.holds(chunk_a, 49, stamp(2)));
}

TEST(Store, After_an_orderly_stop_nothing_is_unclean) {
  Sim_store world(4);
  world.must_start();
  world.make_chunk(chunk_a);
  EXPECT_EQ(world.write(chunk_a, 9, 1, stamp(1)), Errc::ok);
  EXPECT_EQ(world.stop(), Errc::ok);
  world.die(true);
  world.must_start();
  EXPECT_TRUE(world.holds(chunk_a, 9, stamp(1)));
  EXPECT_FALSE(world.chunk(chunk_a).replica.unclean);
  EXPECT_EQ(world.chunk(chunk_a).replica.last_stamp.value, stamp(1));
}

TEST(Store, An_unclean_chunk_stays_unclean_until_a_write_is_accepted) {
  Sim_store world(5);
  world.must_start();
  world.make_chunk(chunk_a);
  EXPECT_EQ(world.write(chunk_a, 9, 1, stamp(1)), Errc::ok);
  world.die(false);
  world.must_start();
  EXPECT_EQ(world.stop(), Errc::ok);
  world.die(false);
  world.must_start();
  EXPECT_TRUE(world.chunk(chunk_a).replica.unclean);
  EXPECT_EQ(world.write(chunk_a, 9, 1, stamp(2)), Errc::ok);
  EXPECT_FALSE(world.chunk(chunk_a).replica.unclean);
  EXPECT_EQ(world.stop(), Errc::ok);
  world.die(false);
  world.must_start();
  EXPECT_FALSE(world.chunk(chunk_a).replica.unclean);
}

TEST(Store, Zeroed_blocks_give_their_space_back) {
  Sim_store world(6);
  world.must_start();
  world.make_chunk(chunk_a);
  EXPECT_EQ(world.write(chunk_a, 0, 64, stamp(1)), Errc::ok);
  EXPECT_EQ(world.write(chunk_a, 64, 64, stamp(2)), Errc::ok);
  EXPECT_EQ(world.stop(), Errc::ok);
  world.die(false);
  world.must_start();
  auto const before = world.disk.used_bytes();
  world.store->zero(world.chunk(chunk_a), 0, 128 * block_bytes, {stamp(3)});
  EXPECT_EQ(world.store->end_turn(), Errc::ok);
  EXPECT_TRUE(world.holds(chunk_a, 5, 0));
  world.run(std::chrono::seconds(10));
  EXPECT_TRUE(world.holds(chunk_a, 5, 0));
  EXPECT_EQ(before - world.disk.used_bytes(), 128u * block_bytes);
  EXPECT_EQ(world.store->block_record(world.chunk(chunk_a), 5).stamp, stamp(3));
}

TEST(Store, The_ring_wraps_many_times_without_losing_anything) {
  Sim_store world(7);
  world.must_start();
  world.make_chunk(chunk_a);
  for (std::uint32_t i = 1; i <= 2000; ++i) {
    ASSERT_EQ(world.write(chunk_a, i % 250, 3, stamp(i)), Errc::ok);
    if (i % 7 == 0) world.run(tick_interval);
  }
  EXPECT_EQ(world.flush({7}), Errc::ok);
  world.die(true);
  world.must_start();
  for (std::uint32_t block = 0; block < 250; ++block) {
    EXPECT_TRUE(
        world.holds(chunk_a, block, world.store->block_record(world.chunk(chunk_a), block).stamp));
    EXPECT_GE(world.store->block_record(world.chunk(chunk_a), block).stamp, stamp(1749));
  }
}

TEST(Store, A_flipped_bit_is_never_returned_as_good) {
  Sim_store world(8);
  world.must_start();
  world.make_chunk(chunk_a);
  EXPECT_EQ(world.write(chunk_a, 0, 64, stamp(1)), Errc::ok);
  EXPECT_EQ(world.stop(), Errc::ok);
  world.die(false);
  std::string const name = chunk_name(chunk_a);
  world.disk.flip(name, data_offset(1u << 20) + 5 * block_bytes + 77, 4);  // data
  world.disk.flip(name, table_offset + 9 * 16 + 2, 1);                     // stamp of block 9
  world.disk.flip(name, table_offset + 11 * 16 + 13, 0x40);                // flags of block 11
  world.must_start();
  for (std::uint32_t const block : {5u, 9u, 11u}) {
    Read_result const found = world.read(chunk_a, block, 1);
    EXPECT_EQ(found.status, Errc::corrupt) << block;
    EXPECT_EQ(found.bad_offset, block * block_bytes);
    EXPECT_TRUE(found.data.empty());
  }
  EXPECT_EQ(world.read(chunk_a, 0, 64).bad_offset, 5u * block_bytes);
  EXPECT_TRUE(world.holds(chunk_a, 6, stamp(1)));
}

TEST(Store, A_table_that_was_wiped_is_damage_and_not_emptiness) {
  Sim_store world(9);
  world.must_start();
  world.make_chunk(chunk_a);
  EXPECT_EQ(world.write(chunk_a, 0, 64, stamp(1)), Errc::ok);
  EXPECT_EQ(world.stop(), Errc::ok);
  world.die(false);
  {
    auto file = world.disk.open(chunk_name(chunk_a), {}).value();
    std::vector<std::byte> zeros(512);
    ASSERT_TRUE(file->write(table_offset, Bytes(zeros)).has_value());
  }
  world.must_start();
  EXPECT_EQ(world.read(chunk_a, 3, 1).status, Errc::corrupt);
}

TEST(Store, A_full_disk_refuses_new_blocks_but_overwrites_and_discards_go_on) {
  Sim_store world(10, {.capacity_bytes = 8u << 20});
  world.must_start();
  world.make_chunk(chunk_a, 16u << 20);
  std::uint32_t sequence = 0;
  std::uint32_t block = 0;
  Errc result = Errc::ok;
  while (result == Errc::ok) {
    result = world.write(chunk_a, block, 8, stamp(++sequence));
    if (result == Errc::ok) block += 8;
  }
  EXPECT_EQ(result, Errc::no_space);
  EXPECT_GT(block, 500u);
  EXPECT_FALSE(world.store->is_read_only());
  world.run(std::chrono::seconds(10));
  EXPECT_EQ(world.write(chunk_a, 16, 8, stamp(++sequence)), Errc::ok);
  EXPECT_EQ(world.write(chunk_a, block, 8, stamp(++sequence)), Errc::no_space);
  world.store->zero(world.chunk(chunk_a), 0, 512 * block_bytes, {stamp(++sequence)});
  world.run(std::chrono::seconds(10));
  EXPECT_EQ(world.write(chunk_a, block, 8, stamp(++sequence)), Errc::ok);
}

// Found by the simulator: clients that wait for room (on-full=wait) ask each half second; each
// question put off the moment at which a disk that had been full is tried again.
TEST(Store, A_disk_that_was_full_is_used_again_although_clients_keep_asking) {
  Sim_store world(10);
  world.must_start();
  world.make_chunk(chunk_a);
  EXPECT_EQ(world.write(chunk_a, 0, 8, stamp(1)), Errc::ok);
  bool is_full = true;  // for what is applied to chunk files: others have taken the room
  world.disk.set_fault(
      [&](sim::Disk_call call, std::string const& name) -> std::optional<std::error_code> {
        if (!is_full || call != sim::Disk_call::write || name == "journal") return std::nullopt;
        return std::error_code(ENOSPC, std::system_category());
      });
  std::uint32_t sequence = 1;
  auto const ask_on = [&](Errc wanted) {
    Errc result = Errc::timed_out;
    for (int i = 0; i < 40 && result != wanted; ++i) {
      world.run(std::chrono::milliseconds(500));
      result = world.write(chunk_a, 8, 8, stamp(++sequence));
    }
    return result;
  };
  EXPECT_EQ(ask_on(Errc::no_space), Errc::no_space);
  is_full = false;
  EXPECT_EQ(ask_on(Errc::ok), Errc::ok);
  EXPECT_TRUE(world.holds(chunk_a, 15, stamp(sequence)));
}

TEST(Store, A_failed_sync_makes_the_repository_read_only_for_good) {
  Sim_store world(11);
  world.must_start();
  world.make_chunk(chunk_a);
  EXPECT_EQ(world.write(chunk_a, 1, 1, stamp(1)), Errc::ok);
  bool failed = false;
  world.disk.set_fault(
      [&](sim::Disk_call call, std::string const&) -> std::optional<std::error_code> {
        if (call != sim::Disk_call::sync || failed) return std::nullopt;
        failed = true;
        return std::error_code(EIO, std::system_category());
      });
  EXPECT_EQ(world.flush({7}), Errc::io_error);
  EXPECT_TRUE(world.store->is_read_only());
  EXPECT_EQ(world.log.errors.size(), 1u);
  EXPECT_EQ(world.write(chunk_a, 1, 1, stamp(2)), Errc::read_only);
  EXPECT_EQ(world.flush({7}), Errc::io_error);
  EXPECT_TRUE(world.holds(chunk_a, 1, stamp(1)));
}

TEST(Store, A_removed_chunk_stays_removed_and_can_be_made_anew) {
  Sim_store world(12);
  world.must_start();
  world.make_chunk(chunk_a);
  EXPECT_EQ(world.write(chunk_a, 1, 30, stamp(1)), Errc::ok);
  Errc removed = Errc::timed_out;
  world.store->remove(chunk_a, [&](Errc done) { removed = done; });
  EXPECT_EQ(world.store->find(chunk_a), nullptr);
  EXPECT_TRUE(world.store->create(chunk_a, {7}, 1u << 20, {1}).has_error());
  world.run(std::chrono::milliseconds(100));
  EXPECT_EQ(removed, Errc::ok);
  world.die(true);
  world.must_start();
  EXPECT_TRUE(world.store->load(chunk_a).has_error());
  world.make_chunk(chunk_a);
  EXPECT_EQ(world.write(chunk_a, 2, 30, stamp(2)), Errc::ok);
  EXPECT_EQ(world.flush({7}), Errc::ok);
  world.die(true);
  world.must_start();
  EXPECT_TRUE(world.holds(chunk_a, 1, 0));
  EXPECT_TRUE(world.holds(chunk_a, 31, stamp(2)));
}

TEST(Store, A_seal_survives_power_loss_with_and_without_a_checkpoint) {
  Sim_store world(13);
  world.must_start();
  Errc sealed = Errc::timed_out;
  world.store->seal({7}, {5}, [&](Errc done) { sealed = done; });
  world.run(std::chrono::milliseconds(50));
  EXPECT_EQ(sealed, Errc::ok);
  world.die(true);
  world.must_start();
  EXPECT_EQ(world.store->seal_of({7}).value, 5u);
  world.run(std::chrono::seconds(10));
  world.die(true);
  world.must_start();
  EXPECT_EQ(world.store->seal_of({7}).value, 5u);
}

TEST(Store, A_damaged_record_in_the_middle_makes_every_chunk_suspect) {
  Sim_store world(14);
  world.must_start();
  world.make_chunk(chunk_a);
  world.make_chunk(chunk_b);
  EXPECT_EQ(world.write(chunk_b, 1, 1, stamp(1)), Errc::ok);
  EXPECT_EQ(world.stop(), Errc::ok);
  world.die(false);
  world.must_start();
  for (std::uint32_t i = 1; i <= 4; ++i) {
    EXPECT_EQ(world.write(chunk_a, i, 1, stamp(i)), Errc::ok);
    EXPECT_EQ(world.flush({7}), Errc::ok);
  }
  Lsn const tail = world.store->journal().tail();
  world.die(true);
  // The data of the second record: each commit ends at a multiple of 4096.
  world.disk.flip("journal", ring_offset + tail % (1u << 20) + 8192 + 500, 1);
  world.must_start();
  EXPECT_EQ(world.log.errors.size(), 1u);
  EXPECT_TRUE(world.holds(chunk_a, 1, stamp(1)));
  EXPECT_TRUE(world.holds(chunk_a, 4, stamp(4)));
  EXPECT_TRUE(world.chunk(chunk_a).replica.unclean);
  EXPECT_TRUE(world.chunk(chunk_b).replica.unclean);
}

TEST(Store, Reads_that_miss_the_page_cache_are_answered_later) {
  Sim_store world(15, {.would_block_percent = 60});
  world.must_start();
  world.make_chunk(chunk_a);
  for (std::uint32_t i = 0; i < 200; ++i) {
    EXPECT_EQ(world.write(chunk_a, i, 1, stamp(i + 1)), Errc::ok);
  }
  EXPECT_EQ(world.stop(), Errc::ok);
  world.die(false);
  world.must_start();
  for (std::uint32_t i = 0; i < 200; i += 10) {
    EXPECT_TRUE(world.holds(chunk_a, i, stamp(i + 1)));
    Read_result const pulled = world.read(chunk_a, i, 10, Read_kind::pull);
    EXPECT_EQ(pulled.data.size(), 10u * block_bytes);
  }
}

}  // namespace
}  // namespace pstorage::cs
