// Reads of a client whom no metadata server confirms the lease: core/client/file_confirm.cc.
#include "tests/core/client/fake_servers.h"

namespace pstorage::client {
namespace {

constexpr std::uint32_t in_sync = 1025, newcomer = 1026;

class Confirm : public Fake_cluster {
 protected:
  Confirm()
      : mds_(world_.add_node("mds", Role::mds, {1}), 1,
             {{in_sync, proto::REPLICA_IN_SYNC}, {newcomer, proto::REPLICA_SYNCING}}),
        old_(world_.add_node(fake_cs_name(in_sync), Role::cs, {2}), in_sync),
        new_(world_.add_node(fake_cs_name(newcomer), Role::cs, {3}), newcomer) {}
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(open());
    EXPECT_EQ(read(), Errc::ok);
    mds_.is_silent = true;
    run(std::chrono::seconds(9));
  }
  Errc read() {
    auto const answer = start_read();
    run(std::chrono::seconds(2));
    return answer->status;
  }

  Fake_mds mds_;
  Fake_cs old_, new_;
};

TEST_F(Confirm, The_replicas_of_a_chunk_confirm_a_lease_that_no_metadata_server_does) {
  EXPECT_EQ(read(), Errc::ok);
}

// The sync of the newcomer had ended, which this client could not hear; then the other server was
// away while somebody took the volume over, and came back unsealed: sim_cluster --seed 12405.
TEST_F(Confirm, A_newcomer_may_be_the_one_that_the_next_writer_has_sealed) {
  new_.is_sealed = true;
  EXPECT_EQ(read(), Errc::stale_epoch);
}

// The next writer has reached one server of the first chunk, and none of the other.
class Confirm_two : public Fake_cluster, public testing::WithParamInterface<bool> {
 protected:
  static constexpr std::uint32_t unreached = 1025, sealed = 1026, elsewhere = 1027;
  Confirm_two()
      : mds_(world_.add_node("mds", Role::mds, {1}), 1,
             {{unreached, proto::REPLICA_IN_SYNC}, {sealed, proto::REPLICA_IN_SYNC}}),
        unreached_(world_.add_node(fake_cs_name(unreached), Role::cs, {2}), unreached),
        sealed_(world_.add_node(fake_cs_name(sealed), Role::cs, {3}), sealed),
        elsewhere_(world_.add_node(fake_cs_name(elsewhere), Role::cs, {4}), elsewhere) {
    mds_.add_chunk({{elsewhere, proto::REPLICA_IN_SYNC}}, GetParam());
  }
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(open());
    EXPECT_EQ(read(0), Errc::ok);
    EXPECT_EQ(read(1), Errc::ok);
    mds_.is_silent = true;
    run(std::chrono::seconds(9));
    sealed_.is_sealed = true;
  }
  Errc read(std::size_t chunk) {
    auto const answer = start_read(chunk * fake_chunk_bytes / block_bytes);
    run(std::chrono::seconds(2));
    return answer->status;
  }

  Fake_mds mds_;
  Fake_cs unreached_, sealed_, elsewhere_;
};

TEST_P(Confirm_two, The_replicas_of_another_chunk_confirm_nothing) {
  std::size_t const taken = GetParam() ? 1 : 0;
  EXPECT_EQ(read(1 - taken), Errc::ok);
  EXPECT_EQ(read(taken), Errc::stale_epoch);
}

INSTANTIATE_TEST_SUITE_P(Order, Confirm_two, testing::Bool());

}  // namespace
}  // namespace pstorage::client
