#include "iscsi/disk.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/iscsi/cdb.h"
#include "tests/iscsi/memory_store.h"

namespace pstorage::iscsi {
namespace {

constexpr std::size_t disk_bytes = 1u << 20;

class Disk_test : public ::testing::Test, public Io_listener {
 protected:
  void io_finished(Io& io) override { finished.push_back(&io); }

  /// Prepares `io` for a command; its buffers are the test's.
  void prepare(Io& io, Cdb const& cdb, std::span<std::uint8_t> out, std::span<std::uint8_t> in) {
    std::optional<Sense> refused;
    auto const command = parse(cdb, refused);
    ASSERT_TRUE(command.has_value() && !refused);
    io.command = *command;
    io.out = out;
    io.in = in;
  }

  /// Runs one command to its end.
  Io& run(Cdb const& cdb, std::span<std::uint8_t> out = {}, std::span<std::uint8_t> in = {}) {
    prepare(io_, cdb, out, in);
    if (!disk.start(io_)) {
      store.answer_all();
      EXPECT_FALSE(finished.empty());
      finished.clear();
    }
    return io_;
  }

  Memory_disk_store store{disk_bytes};
  Disk disk{store, *this, {.size = disk_bytes, .block = 512}};
  std::vector<Io*> finished;
  Io io_;
};

std::vector<std::uint8_t> filled(std::size_t bytes, std::uint8_t value) {
  return std::vector<std::uint8_t>(bytes, value);
}

TEST_F(Disk_test, What_is_written_is_read) {
  auto out = filled(1024, 0x5a);
  EXPECT_EQ(run(cdb_10(opcode::write_10, 3, 2), out).status, Status::good);
  auto in = filled(2048, 0xff);
  auto const& io = run(cdb_10(opcode::read_10, 2, 4), {}, in);
  EXPECT_EQ(io.in_bytes, 2048u);
  EXPECT_EQ(in[511], 0);
  EXPECT_EQ(in[512], 0x5a);
  EXPECT_EQ(in[1535], 0x5a);
  EXPECT_EQ(in[1536], 0);
}

TEST_F(Disk_test, A_read_never_passes_the_initiators_buffer) {
  auto in = filled(700, 1);
  auto const& io = run(cdb_10(opcode::read_10, 0, 2), {}, in);
  EXPECT_EQ(io.status, Status::good);
  EXPECT_EQ(io.in_bytes, 1024u);
  EXPECT_EQ(std::accumulate(in.begin(), in.end(), 0), 0);
}

TEST_F(Disk_test, Compare_and_write_writes_only_what_matched) {
  auto both = filled(1024, 0);
  std::fill_n(both.begin() + 512, 512, 0x77);
  Cdb cdb = cdb_16(opcode::compare_and_write, 5, 0);
  cdb[13] = 1;
  EXPECT_EQ(run(cdb, both).status, Status::good);
  EXPECT_EQ(store.data[5 * 512], 0x77);
  std::fill_n(both.begin(), 512, 0x77);
  both[100] = 0;
  std::fill_n(both.begin() + 512, 512, 0x11);
  auto const& refused = run(cdb, both);
  EXPECT_EQ(refused.status, Status::check_condition);
  EXPECT_EQ(refused.sense, sense::miscompare);
  EXPECT_EQ(refused.information, 100u);
  EXPECT_EQ(store.data[5 * 512], 0x77);
  EXPECT_EQ(run(cdb, std::span(both).first(512)).sense, sense::invalid_field_in_cdb);
}

TEST_F(Disk_test, Of_two_racing_compare_and_writes_one_wins) {
  auto first = filled(1024, 0), second = filled(1024, 0);
  std::fill_n(first.begin() + 512, 512, 1);
  std::fill_n(second.begin() + 512, 512, 2);
  Cdb cdb = cdb_16(opcode::compare_and_write, 0, 0);
  cdb[13] = 1;
  Io a, b;
  prepare(a, cdb, first, {});
  prepare(b, cdb, second, {});
  EXPECT_FALSE(disk.start(a));
  EXPECT_FALSE(disk.start(b));
  EXPECT_EQ(store.queue.size(), 1u);  // the second one has not read yet
  store.answer_all();
  EXPECT_EQ(finished, (std::vector<Io*>{&a, &b}));
  EXPECT_EQ(a.status, Status::good);
  EXPECT_EQ(b.sense, sense::miscompare);
  EXPECT_EQ(store.data[0], 1);
}

TEST_F(Disk_test, Or_write_and_write_and_verify) {
  auto out = filled(512, 0x0f);
  run(cdb_16(opcode::write_16, 9, 1), out);
  auto bits = filled(512, 0xf0);
  EXPECT_EQ(run(cdb_16(opcode::or_write_16, 9, 1), bits).status, Status::good);
  EXPECT_EQ(store.data[9 * 512 + 511], 0xff);
  EXPECT_EQ(run(cdb_16(opcode::write_and_verify_16, 9, 1), out).status, Status::good);
  EXPECT_EQ(store.data[9 * 512], 0x0f);
  EXPECT_EQ(run(cdb_16(opcode::verify_16, 9, 1, 0x02), bits).sense, sense::miscompare);
  EXPECT_EQ(run(cdb_16(opcode::verify_16, 9, 1, 0x02), out).status, Status::good);
}

TEST_F(Disk_test, Write_same_repeats_a_block_and_zeros_become_holes) {
  auto block = filled(512, 0);
  block[7] = 9;
  EXPECT_EQ(run(cdb_16(opcode::write_same_16, 10, 100), block).status, Status::good);
  EXPECT_EQ(store.data[10 * 512 + 7], 9);
  EXPECT_EQ(store.data[109 * 512 + 7], 9);
  EXPECT_EQ(store.data[110 * 512 + 7], 0);
  EXPECT_TRUE(store.written[10 * 512]);
  auto zeros = filled(512, 0);
  EXPECT_EQ(run(cdb_16(opcode::write_same_16, 10, 100, 0x08), zeros).status, Status::good);
  EXPECT_FALSE(store.written[10 * 512]);
  EXPECT_EQ(run(cdb_16(opcode::write_same_16, 0, 0, 0x01)).status,
            Status::good);  // NDOB, to the end
  EXPECT_EQ(std::count(store.written.begin(), store.written.end(), true), 0);
}

std::vector<std::uint8_t> unmap_list(
    std::vector<std::pair<std::uint64_t, std::uint32_t>> const& ranges) {
  std::vector<std::uint8_t> list(8 + 16 * ranges.size());
  put_be<2>(list, 0, list.size() - 2);
  put_be<2>(list, 2, 16 * ranges.size());
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    put_be<8>(list, 8 + 16 * i, ranges[i].first);
    put_be<4>(list, 16 + 16 * i, ranges[i].second);
  }
  return list;
}

Cdb unmap_cdb(std::size_t bytes) {
  return cdb_10(opcode::unmap, 0, static_cast<std::uint16_t>(bytes));
}

TEST_F(Disk_test, Unmap_clears_every_range_or_none) {
  auto block = filled(512, 1);
  run(cdb_16(opcode::write_same_16, 0, 200), block);
  auto list = unmap_list({{8, 8}, {0, 0}, {100, 4}});
  EXPECT_EQ(run(unmap_cdb(list.size()), list).status, Status::good);
  EXPECT_EQ(std::count(store.written.begin(), store.written.begin() + 200 * 512, false), 12 * 512);
  auto bad = unmap_list({{0, 8}, {2048, 1}});
  EXPECT_EQ(run(unmap_cdb(bad.size()), bad).sense, sense::lba_out_of_range);
  EXPECT_TRUE(store.written[0]);
  auto wrap = unmap_list({{UINT64_MAX, 2}});
  EXPECT_EQ(run(unmap_cdb(wrap.size()), wrap).sense, sense::lba_out_of_range);
  EXPECT_EQ(run(unmap_cdb(4), std::span(list).first(4)).sense, sense::parameter_length);
  EXPECT_EQ(run(unmap_cdb(0)).status, Status::good);
}

TEST_F(Disk_test, Block_status_lists_mapped_and_unmapped_runs) {
  auto out = filled(4096, 1);
  run(cdb_10(opcode::write_10, 8, 8), out);
  auto in = filled(1024, 0xee);
  Cdb cdb{opcode::service_action_in, 0x12};
  put_be<8>(cdb, 2, 4);
  put_be<4>(cdb, 10, in.size());
  auto const& io = run(cdb, {}, in);
  EXPECT_EQ(io.status, Status::good);
  EXPECT_EQ(io.in_bytes, 8u + 3 * 16);
  EXPECT_EQ(get_be<4>(in, 0), io.in_bytes - 4);
  EXPECT_EQ(get_be<8>(in, 8), 4u);
  EXPECT_EQ(get_be<4>(in, 16), 4u);
  EXPECT_EQ(in[20], 1);  // unmapped
  EXPECT_EQ(get_be<8>(in, 24), 8u);
  EXPECT_EQ(get_be<4>(in, 32), 8u);
  EXPECT_EQ(in[36], 0);
  EXPECT_EQ(get_be<8>(in, 40), 16u);
}

TEST_F(Disk_test, An_error_of_the_store_is_never_a_medium_error_unless_data_is_gone) {
  auto in = filled(512, 0);
  auto const fails_with = [&](int error) {
    prepare(io_, cdb_10(opcode::read_10, 0, 1), {}, in);
    EXPECT_FALSE(disk.start(io_));
    store.answer_one(error);
    EXPECT_EQ(io_.status, Status::check_condition);
    return io_.sense;
  };
  EXPECT_EQ(fails_with(EAGAIN), sense::becoming_ready);
  EXPECT_EQ(fails_with(EINVAL), sense::hardware_error);
  EXPECT_EQ(fails_with(ENOSPC), sense::space_exhausted);
  EXPECT_EQ(fails_with(EIO), sense::unrecovered_read);
}

TEST_F(Disk_test, A_mark_is_drained_when_everything_before_it_has_ended) {
  auto out = filled(512, 1);
  Io before, after;
  prepare(before, cdb_10(opcode::write_10, 0, 1), out, {});
  EXPECT_FALSE(disk.start(before));
  auto const mark = disk.mark();
  prepare(after, cdb_10(opcode::write_10, 8, 1), out, {});
  EXPECT_FALSE(disk.start(after));
  EXPECT_FALSE(disk.is_drained(mark));
  store.answer_one();
  EXPECT_TRUE(disk.is_drained(mark));
  EXPECT_EQ(disk.running(), 1u);
  store.answer_one();
}

}  // namespace
}  // namespace pstorage::iscsi
