// Which blocks of a file are holes: File_volume::extents.
#include "tests/core/client/fake_servers.h"

namespace pstorage::client {
namespace {

class Extents : public Fake_cluster {
 protected:
  Extents()
      : mds_(world_.add_node("mds", Role::mds, {1}), 1, {{1025, proto::REPLICA_IN_SYNC}}),
        cs_(world_.add_node(fake_cs_name(1025), Role::cs, {2}), 1025) {}
  void SetUp() override { ASSERT_NO_FATAL_FAILURE(open()); }
  /// One letter a block of the chunk: h for a hole, d for data.
  std::string blocks() {
    auto const found = std::make_shared<std::string>();
    node_.run([&] {
      volume_->extents(0, fake_chunk_bytes, 16, [found](Result<std::vector<Extent>> const& runs) {
        ASSERT_TRUE(runs.has_value());
        for (Extent const& run : runs.value())
          found->append(run.length / block_bytes, run.hole ? 'h' : 'd');
      });
    });
    run(std::chrono::milliseconds(100));
    return *found;
  }

  Fake_mds mds_;
  Fake_cs cs_;
};

TEST_F(Extents, Follow_the_table) {
  cs_.table[2].flags = cs_.table[3].flags = 0;
  EXPECT_EQ(blocks(), "hhddhhhhhhhhhhhh");
}

// A sync that found no valid data leaves such a block. Whoever took it for a hole would copy the
// damage as zeros; a read of it says what it is.
TEST_F(Extents, A_damaged_block_without_data_is_no_hole) {
  cs_.table[1].flags = block_hole | block_corrupt;
  cs_.table[5].flags = block_corrupt;
  cs_.table[7].flags = block_corrupt | block_torn;
  EXPECT_EQ(blocks(), "hdhhhdhdhhhhhhhh");
}

}  // namespace
}  // namespace pstorage::client
