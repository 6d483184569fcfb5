#include <gtest/gtest.h>

#include "tests/mds/raft/log_bench.h"

namespace pstorage::mds::raft {
namespace {

TEST(Raft_log, A_new_log_has_the_first_members_and_an_id) {
  Log_bench bench;
  ASSERT_TRUE(bench.start()) << bench.error;
  EXPECT_EQ(bench.state.base.configuration, Log_bench::three());
  EXPECT_EQ(bench.last_index(), 0u);
  auto const member = bench.log->member();
  EXPECT_TRUE(static_cast<bool>(member));
  bench.crash();
  ASSERT_TRUE(bench.start()) << bench.error;
  EXPECT_EQ(bench.log->member(), member);
}

TEST(Raft_log, A_ready_is_durable_after_one_sync) {
  Log_bench bench;
  ASSERT_TRUE(bench.start());
  bench.settle();
  bench.write(1, 3, 5);
  EXPECT_EQ(bench.persisted, 0u);
  bench.settle();
  EXPECT_EQ(bench.persisted, 1u);
  EXPECT_EQ(bench.log->commits(), 1u);
  bench.crash();
  ASSERT_TRUE(bench.start()) << bench.error;
  EXPECT_EQ(bench.last_index(), 3u);
  EXPECT_EQ(bench.state.hard.term, 5u);
  EXPECT_EQ(bench.state.hard.vote, Member_id{2});
  EXPECT_EQ(bench.state.entries.back().bytes.size(), 100u);
}

TEST(Raft_log, Readys_that_come_during_a_sync_share_the_next) {
  Log_bench bench;
  ASSERT_TRUE(bench.start());
  for (std::uint64_t index = 1; index <= 10; ++index) bench.write(index, index, 1);
  bench.settle();
  EXPECT_EQ(bench.persisted, 10u);
  EXPECT_EQ(bench.log->commits(), 2u);
}

TEST(Raft_log, A_conflicting_suffix_is_gone_after_a_restart) {
  Log_bench bench;
  ASSERT_TRUE(bench.start());
  bench.append(1, 6, 1);
  bench.append(4, 5, 2, 4);
  bench.crash();
  ASSERT_TRUE(bench.start()) << bench.error;
  ASSERT_EQ(bench.last_index(), 5u);
  EXPECT_EQ(bench.state.entries[2].term, 1u);
  EXPECT_EQ(bench.state.entries[3].term, 2u);
}

TEST(Raft_log, Voided_entries_of_one_batch_are_never_written) {
  Log_bench bench;
  ASSERT_TRUE(bench.start());
  bench.write(1, 1, 1);  // its sync is under way: the others wait together
  bench.write(2, 6, 1);
  bench.write(4, 4, 2, 4);
  bench.write(3, 3, 3, 3);
  bench.settle();
  bench.crash();
  ASSERT_TRUE(bench.start()) << bench.error;
  ASSERT_EQ(bench.last_index(), 3u);
  EXPECT_EQ(bench.state.entries[2].term, 3u);
}

TEST(Raft_log, A_snapshot_replaces_everything) {
  Log_bench bench;
  ASSERT_TRUE(bench.start());
  bench.append(1, 6, 1);
  Snapshot snapshot{100, 7, Log_bench::three()};
  snapshot.configuration.remove(Member_id{3});
  bench.install(snapshot);
  bench.append(101, 102, 7);
  bench.crash();
  ASSERT_TRUE(bench.start(100)) << bench.error;
  EXPECT_EQ(bench.state.base, snapshot);
  EXPECT_EQ(bench.last_index(), 102u);
}

TEST(Raft_log, Cut_segments_are_removed_and_the_rest_knows_its_base) {
  Log_bench bench;
  ASSERT_TRUE(bench.start());
  for (std::uint64_t index = 1; index <= 60; ++index) bench.append(index, index, 1 + index / 20);
  EXPECT_TRUE(bench.disk.exists(Log_bench::name(1)));
  bench.log->cut(50);
  EXPECT_FALSE(bench.disk.exists(Log_bench::name(1)));
  bench.crash();
  ASSERT_TRUE(bench.start(50)) << bench.error;
  EXPECT_GT(bench.state.base.index, 30u);
  EXPECT_LE(bench.state.base.index, 50u);
  EXPECT_EQ(bench.state.base.term, 1 + bench.state.base.index / 20);
  EXPECT_EQ(bench.state.base.configuration, Log_bench::three());
  EXPECT_EQ(bench.last_index(), 60u);
}

TEST(Raft_log, A_log_that_begins_behind_the_database_does_not_start) {
  Log_bench bench;
  ASSERT_TRUE(bench.start());
  for (std::uint64_t index = 1; index <= 60; ++index) bench.append(index, index, 1);
  bench.log->cut(50);
  ASSERT_TRUE(bench.disk.sync_directory("raft").has_value());
  bench.crash();
  EXPECT_FALSE(bench.start(10));
  EXPECT_NE(bench.error.find("the database has only 10"), std::string::npos) << bench.error;
}

TEST(Raft_log, A_torn_last_frame_is_cut_off) {
  for (int round = 0; round < 40; ++round) {
    Log_bench bench;
    for (int i = 0; i < round; ++i) bench.random.next();
    ASSERT_TRUE(bench.start());
    bench.append(1, 4, 1);
    bench.write(5, 8, 1, 0, 2000);  // three blocks, not synced
    bench.crash();
    ASSERT_TRUE(bench.start()) << bench.error;
    EXPECT_TRUE(bench.last_index() == 4 || bench.last_index() == 8) << bench.last_index();
    EXPECT_EQ(bench.state.hard.repair_until, 0u);
    auto const last = bench.last_index();
    bench.append(last + 1, last + 1, 2);
    bench.crash();
    ASSERT_TRUE(bench.start()) << bench.error;
    EXPECT_EQ(bench.last_index(), last + 1);
  }
}

TEST(Raft_log, What_a_killed_process_left_in_the_page_cache_is_synced_before_it_counts) {
  Log_bench bench;
  ASSERT_TRUE(bench.start());
  bench.append(1, 1, 1);
  bench.write(2, 2, 1);
  bench.log.reset();
  bench.disk.kill();
  ASSERT_TRUE(bench.start());
  EXPECT_EQ(bench.last_index(), 2u);
  bench.crash();
  ASSERT_TRUE(bench.start());
  EXPECT_EQ(bench.last_index(), 2u);
}

TEST(Raft_log, A_damaged_beginning_is_beyond_repair) {
  Log_bench bench;
  ASSERT_TRUE(bench.start());
  bench.append(1, 3, 1);
  bench.append(4, 6, 1);
  bench.crash();
  bench.rot(1, 1);
  EXPECT_FALSE(bench.start());
  EXPECT_NE(bench.error.find("its beginning is missing"), std::string::npos) << bench.error;
}

TEST(Raft_log, A_full_disk_refuses_entries_and_loses_nothing) {
  Log_bench bench;
  ASSERT_TRUE(bench.start());
  bench.settle();
  bench.disk.set_capacity(bench.disk.used_bytes() + 4096);
  std::uint64_t index = 1;
  while (index < 100 && bench.log->has_room(100)) {
    bench.append(index, index, 1);
    ++index;
  }
  EXPECT_GT(index, 15u);
  EXPECT_LT(index, 40u);
  EXPECT_TRUE(bench.failures.empty());
  Ready vote;  // there is room for terms and votes
  vote.token = 1000;
  vote.must_sync = true;
  vote.hard = {.term = 9, .vote = Member_id{3}};
  bench.log->write(vote);
  bench.log->flush();
  bench.settle();
  EXPECT_EQ(bench.persisted, 1000u);
  bench.disk.set_capacity(sim::unlimited_bytes);
  bench.log->tick();
  bench.settle();
  EXPECT_TRUE(bench.log->has_room(100));
  bench.append(index, index, 9);
  bench.crash();
  ASSERT_TRUE(bench.start()) << bench.error;
  EXPECT_EQ(bench.last_index(), index);
}

TEST(Raft_log, A_failed_sync_ends_it) {
  Log_bench bench;
  ASSERT_TRUE(bench.start());
  bench.settle();
  bench.disk.set_fault([](sim::Disk_call call, std::string const&) {
    return call == sim::Disk_call::sync ? std::optional(std::error_code(5, std::system_category()))
                                        : std::nullopt;
  });
  bench.write(1, 1, 1);
  bench.settle();
  EXPECT_EQ(bench.persisted, 0u);
  ASSERT_EQ(bench.failures.size(), 1u);
  bench.disk.set_fault(nullptr);
  bench.write(2, 2, 1);
  bench.settle();
  EXPECT_EQ(bench.persisted, 0u) << "never retried";
}

TEST(Raft_log, An_entry_that_can_never_be_written_is_known) {
  Log_bench bench;
  ASSERT_TRUE(bench.start());
  EXPECT_TRUE(bench.log->fits(50'000));
  EXPECT_FALSE(bench.log->fits(Log_bench::segment_bytes));
  bench.append(1, 1, 1, 0, 50'000);
  bench.append(2, 2, 1, 0, 50'000);
  bench.crash();
  ASSERT_TRUE(bench.start()) << bench.error;
  EXPECT_EQ(bench.last_index(), 2u);
}

TEST(Raft_frame, Every_damaged_byte_is_noticed) {
  Raft_frame frame;
  frame.sequence = 7;
  frame.member = Member_id{5};
  frame.first_index = 3;
  frame.last_index = 3;
  frame.entries = {Log_bench::entry(3, 2, 10)};
  frame.base = Snapshot{2, 1, Log_bench::three()};
  auto bytes = encode_raft_frame(99, frame);
  std::uint64_t length = 0;
  ASSERT_TRUE(decode_raft_frame(99, bytes, length).has_value());
  EXPECT_EQ(length, bytes.size());
  EXPECT_FALSE(decode_raft_frame(98, bytes, length).has_value()) << "of another log";
  auto const used =
      raft_frame_header_bytes + payload_of(frame.entries[0]) + payload_of(*frame.base);
  for (std::size_t at = 0; at < used; ++at) {
    bytes[at] ^= std::byte{1};
    EXPECT_FALSE(decode_raft_frame(99, bytes, length).has_value()) << at;
    bytes[at] ^= std::byte{1};
  }
}

}  // namespace
}  // namespace pstorage::mds::raft
