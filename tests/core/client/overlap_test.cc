// What a request is answered while another one of the same block is not: core/client/chunk_read.cc,
// chunk_members.cc.
#include "tests/core/client/fake_servers.h"

namespace pstorage::client {
namespace {

constexpr auto in_sync = proto::REPLICA_IN_SYNC, syncing = proto::REPLICA_SYNCING;
constexpr std::byte written{7};

class Overlap : public Fake_cluster {
 protected:
  explicit Overlap(Fake_mds::Members members)
      : mds_(world_.add_node("mds", Role::mds, {1}), 2, std::move(members)),
        first_(world_.add_node(fake_cs_name(1025), Role::cs, {2}), 1025),
        second_(world_.add_node(fake_cs_name(1026), Role::cs, {3}), 1026),
        third_(world_.add_node(fake_cs_name(1027), Role::cs, {4}), 1027) {}
  void SetUp() override { ASSERT_NO_FATAL_FAILURE(open()); }
  // Shorter than what the client takes for a server's silence.
  void run_a_moment() { run(std::chrono::milliseconds(400)); }

  Fake_mds mds_;
  Fake_cs first_, second_, third_;
};

class Overlapping_read : public Overlap {
 protected:
  Overlapping_read() : Overlap({{1025, in_sync}, {1026, in_sync}}) {}
};

// The read waits for a disk, or another replica is asked; the write began after it and is there
// before it. With the replica it could still be lost: sim_cluster --seed 20418, 22732.
TEST_F(Overlapping_read, Is_not_answered_with_a_write_that_not_all_replicas_have) {
  first_.holds_reads = second_.holds_reads = second_.holds_writes = true;
  auto const read = start_read();
  run_a_moment();
  auto const write = start_write(written);
  run_a_moment();
  ASSERT_NE(first_.last_stamp, 0u);
  ASSERT_EQ(second_.last_stamp, 0u);
  ASSERT_NE(first_.held(), 0u);
  first_.release();
  run_a_moment();
  EXPECT_EQ(read->status, Errc::timed_out);
  EXPECT_EQ(write->status, Errc::timed_out);
  second_.release();
  run_a_moment();
  EXPECT_EQ(write->status, Errc::ok);
  EXPECT_EQ(read->status, Errc::ok);
  EXPECT_EQ(read->first, written);
}

TEST_F(Overlapping_read, Is_answered_at_once_when_nothing_is_written) {
  first_.holds_reads = second_.holds_reads = true;
  auto const read = start_read();
  run_a_moment();
  first_.release();
  run_a_moment();
  EXPECT_EQ(read->status, Errc::ok);
}

/// A write that not all of three have acknowledged when the set shrinks to less than replicas_min:
/// its answer is held back until others have been synced.
class Held_write : public Overlap {
 protected:
  Held_write() : Overlap({{1025, in_sync}, {1026, in_sync}, {1027, in_sync}}) {}
  void write_and_change_set(Fake_mds::Members members) {
    third_.holds_writes = true;
    write_ = start_write(written);
    run_a_moment();
    ASSERT_NE(first_.last_stamp, 0u);
    third_.forget();
    change_set(std::move(members));
    ASSERT_TRUE(third_.has_joined);
    ASSERT_EQ(write_->status, Errc::timed_out);
  }
  void change_set(Fake_mds::Members members) {
    mds_.change_set(std::move(members));
    run_a_moment();
  }
  Answered write_;
};

TEST_F(Held_write, Is_answered_when_enough_have_it) {
  write_and_change_set({{1025, in_sync}, {1027, syncing}});
  third_.last_stamp = first_.last_stamp;
  change_set({{1025, in_sync}, {1027, in_sync}});
  EXPECT_EQ(write_->status, Errc::ok);
}

// The newcomer's source had lost it with its power when it was pulled from: sim_cluster --seed
// 22258.
TEST_F(Held_write, Is_not_answered_when_a_newcomer_is_in_sync_without_it) {
  write_and_change_set({{1025, in_sync}, {1027, syncing}});
  change_set({{1025, in_sync}, {1027, in_sync}});
  EXPECT_EQ(write_->status, Errc::timed_out);
  EXPECT_EQ(mds_.reported, std::vector<std::uint32_t>{1027});
  change_set({{1025, in_sync}, {1027, syncing}});
  third_.last_stamp = first_.last_stamp;
  change_set({{1025, in_sync}, {1027, in_sync}});
  EXPECT_EQ(write_->status, Errc::ok);
}

TEST_F(Held_write, Is_sent_again_when_all_are_in_sync_without_it) {
  second_.holds_writes = true;
  write_and_change_set({{1025, in_sync}, {1026, syncing}, {1027, syncing}});
  second_.forget();
  change_set({{1026, in_sync}, {1027, in_sync}});
  EXPECT_EQ(write_->status, Errc::timed_out);
  ASSERT_EQ(second_.held(), 1u);
  ASSERT_EQ(third_.held(), 1u);
  second_.release();
  run_a_moment();
  EXPECT_EQ(write_->status, Errc::timed_out);
  third_.release();
  run_a_moment();
  EXPECT_EQ(write_->status, Errc::ok);
  EXPECT_NE(third_.last_stamp, 0u);
}

class Refused_write : public Overlap {
 protected:
  Refused_write() : Overlap({{1025, in_sync}, {1026, in_sync}}) { mds_.on_full = "wait"; }
};

// Whoever had no room for one write and has a later one would take the first one, sent again as it
// was, for one that it has: sim_cluster --seed 30137.
TEST_F(Refused_write, Is_stored_in_the_end_by_a_server_that_has_taken_a_later_one) {
  constexpr std::byte later{9};
  first_.no_room_for = 0;
  second_.no_room_for = 1;
  auto const write = start_write(written);
  auto const other = start_write(later, 1);
  run_a_moment();
  EXPECT_EQ(first_.content(1), later);
  EXPECT_EQ(second_.content(0), written);
  first_.no_room_for = second_.no_room_for = std::nullopt;
  run(std::chrono::seconds(5));
  EXPECT_EQ(write->status, Errc::ok);
  EXPECT_EQ(other->status, Errc::ok);
  for (Fake_cs const* server : {&first_, &second_}) {
    EXPECT_EQ(server->content(0), written);
    EXPECT_EQ(server->content(1), later);
  }
}

}  // namespace
}  // namespace pstorage::client
