// What is noted in properties of volumes.
#include "blockdev/volume/names.h"

#include <gtest/gtest.h>

namespace pstorage::volume::test {
namespace {

TEST(Merge_note, Comes_back_as_it_was) {
  auto const begun = merge_note("{guid}");
  EXPECT_EQ(begun.guid, "{guid}");
  EXPECT_EQ(begun.all, 0u);
  auto const half = merge_note(Merge_note{"{guid}", 16, 100, {}}.text());
  EXPECT_EQ(half.guid, "{guid}");
  EXPECT_EQ(half.done, 16u);
  EXPECT_EQ(half.all, 100u);
  EXPECT_TRUE(half.why.empty());
  auto const failed = merge_note(Merge_note{"{guid}", 0, 0, "there is no space"}.text());
  EXPECT_EQ(failed.guid, "{guid}");
  EXPECT_EQ(failed.why, "there is no space");
  EXPECT_TRUE(merge_note("").guid.empty());
}

}  // namespace
}  // namespace pstorage::volume::test
