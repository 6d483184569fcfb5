#include "core/nearest.h"

#include <gtest/gtest.h>

namespace pstorage {
namespace {

TEST(Nearest, Is_the_name_with_the_fewest_changes) {
  std::vector<std::string> const names = {"stat", "top", "set-attr", "get-attr"};
  EXPECT_EQ(nearest("stta", names), "stat");
  EXPECT_EQ(nearest("get-atr", names), "get-attr");
  EXPECT_EQ(nearest("et-attr", names), "set-attr");  // as near as get-attr, and before it
  EXPECT_EQ(nearest("", names), "top");
  EXPECT_EQ(nearest("x", {}), "");
}

TEST(Nearest, Is_nothing_when_all_are_too_far) {
  EXPECT_EQ(nearest("stta", {"stat"}, 1), "");
  EXPECT_EQ(nearest("stta", {"stat"}, 2), "stat");
}

}  // namespace
}  // namespace pstorage
