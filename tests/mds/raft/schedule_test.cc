#include <gtest/gtest.h>

#include "tests/mds/raft/schedules.h"

namespace pstorage::mds::raft {
namespace {

class Raft_schedule : public ::testing::TestWithParam<Schedule> {};

TEST_P(Raft_schedule, Holds) { EXPECT_EQ(GetParam().run(), ""); }

INSTANTIATE_TEST_SUITE_P(All, Raft_schedule, ::testing::ValuesIn(schedules()),
                         [](auto const& schedule) { return std::string(schedule.param.name); });

}  // namespace
}  // namespace pstorage::mds::raft
