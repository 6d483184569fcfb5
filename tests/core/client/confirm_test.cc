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

}  // namespace
}  // namespace pstorage::client
