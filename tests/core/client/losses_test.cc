// Writes that all replicas lose with their power before they are answered.
#include "tests/core/client/fake_servers.h"

namespace pstorage::client {
namespace {

constexpr std::uint32_t first = 1025, second = 1026;

/// Of the file's two chunks each has a server of its own.
class Losses : public Fake_cluster {
 protected:
  Losses()
      : mds_(world_.add_node("mds", Role::mds, {1}), 1, {{first, proto::REPLICA_IN_SYNC}}),
        first_(world_.add_node(fake_cs_name(first), Role::cs, {2}), first),
        second_(world_.add_node(fake_cs_name(second), Role::cs, {3}), second) {
    mds_.add_chunk({{second, proto::REPLICA_IN_SYNC}}, false);
  }
  void SetUp() override { ASSERT_NO_FATAL_FAILURE(open()); }

  Fake_mds mds_;
  Fake_cs first_, second_;
};

// One part was there, and lost before the other one was: sim_cluster --seed 33984.
TEST_F(Losses, A_write_across_chunks_is_not_answered_when_a_part_is_lost_meanwhile) {
  constexpr std::size_t last_block = fake_chunk_bytes / block_bytes - 1;
  second_.holds_writes = true;
  auto const answer = start_write(std::byte{7}, last_block, 2);
  run(std::chrono::milliseconds(100));
  ASSERT_EQ(first_.content(last_block), std::byte{7});
  ASSERT_EQ(second_.held(), 1u);
  first_.forget();
  mds_.change_set({{first, proto::REPLICA_IN_SYNC}});  // opened again, it says what it has
  run(std::chrono::seconds(1));
  EXPECT_EQ(answer->status, Errc::timed_out);
  second_.release();
  run(std::chrono::seconds(1));
  EXPECT_EQ(answer->status, Errc::lost_writes);
}

TEST_F(Losses, A_write_across_chunks_is_answered_when_both_parts_are_there) {
  constexpr std::size_t last_block = fake_chunk_bytes / block_bytes - 1;
  auto const answer = start_write(std::byte{7}, last_block, 2);
  run(std::chrono::milliseconds(100));
  EXPECT_EQ(answer->status, Errc::ok);
  EXPECT_EQ(second_.content(0), std::byte{7});
}

}  // namespace
}  // namespace pstorage::client
