#include "iscsi/tool/failover.h"

#include <gtest/gtest.h>

namespace pstorage::iscsi {
namespace {

using Step = Failover_step;
using std::chrono::seconds;

Target_view running_at(std::string const& owner, std::string const& holder) {
  Target_view view;
  view.should_run = view.may_move = true;
  view.owner = owner;
  view.holder = holder;
  return view;
}

class Gateway_failover : public testing::Test {
 protected:
  Time_point now{seconds(1000)};
  Failover failover{"me"};
};

TEST_F(Gateway_failover, The_registered_host_takes_the_lease_and_starts) {
  auto view = running_at("me", "");
  EXPECT_EQ(failover.decide("t", view, now), Step::take_lease);
  view.is_ours = true;
  EXPECT_EQ(failover.decide("t", view, now), Step::start);
  view.local = Local_state::serving;
  EXPECT_EQ(failover.decide("t", view, now), Step::none);
}

TEST_F(Gateway_failover, A_held_target_of_another_host_is_left_alone) {
  EXPECT_EQ(failover.decide("t", running_at("other", "iscsid@other"), now), Step::none);
}

TEST_F(Gateway_failover, One_whose_holder_has_gone_is_taken_over_at_once) {
  failover.decide("t", running_at("other", "iscsid@other"), now);
  auto view = running_at("other", "");
  EXPECT_EQ(failover.decide("t", view, now + seconds(10)), Step::take_lease);
  view.is_ours = true;
  EXPECT_EQ(failover.decide("t", view, now + seconds(10)), Step::take_over);
}

TEST_F(Gateway_failover, One_never_seen_held_gets_time_for_its_own_host) {
  auto const view = running_at("other", "");
  EXPECT_EQ(failover.decide("t", view, now), Step::none);
  EXPECT_EQ(failover.decide("t", view, now + seconds(29)), Step::none);
  EXPECT_EQ(failover.decide("t", view, now + seconds(30)), Step::take_lease);
}

TEST_F(Gateway_failover, One_that_may_not_move_stays) {
  auto view = running_at("other", "iscsid@other");
  view.may_move = false;
  failover.decide("t", view, now);
  view.holder = "";
  EXPECT_EQ(failover.decide("t", view, now + seconds(100)), Step::none);
}

TEST_F(Gateway_failover, A_target_that_somebody_else_serves_is_stopped_here) {
  auto view = running_at("other", "iscsid@other");
  view.local = Local_state::serving;
  EXPECT_EQ(failover.decide("t", view, now), Step::stop_local);
}

TEST_F(Gateway_failover, A_host_with_a_portal_stands_by_until_the_lease_is_free) {
  auto view = running_at("other", "iscsid@other");
  view.stands_by = true;
  EXPECT_EQ(failover.decide("t", view, now), Step::stand_by);
  failover.failed("t", now);
  EXPECT_EQ(failover.decide("t", view, now), Step::none);
  now = now + seconds(1);
  EXPECT_EQ(failover.decide("t", view, now), Step::stand_by);
  failover.succeeded("t");
  view.local = Local_state::standby;
  EXPECT_EQ(failover.decide("t", view, now), Step::none);
  view.local = Local_state::outdated_standby;
  EXPECT_EQ(failover.decide("t", view, now), Step::stand_by);
  view.local = Local_state::standby;
  view.holder = "";
  EXPECT_EQ(failover.decide("t", view, now), Step::take_lease);
  view.is_ours = true;
  EXPECT_EQ(failover.decide("t", view, now), Step::take_over);
  view.owner = "me";
  EXPECT_EQ(failover.decide("t", view, now), Step::start);
  view.local = Local_state::serving;
  EXPECT_EQ(failover.decide("t", view, now), Step::none);
}

TEST_F(Gateway_failover, Standing_by_ends_with_the_target_or_its_portal) {
  auto view = running_at("other", "iscsid@other");
  view.local = Local_state::standby;
  EXPECT_EQ(failover.decide("t", view, now), Step::stop_local);
  view.stands_by = true;
  view.should_run = false;
  EXPECT_EQ(failover.decide("t", view, now), Step::stop_local);
}

TEST_F(Gateway_failover, A_host_without_a_portal_does_not_take_over) {
  failover.decide("t", running_at("other", "iscsid@other"), now);
  auto view = running_at("other", "");
  view.may_serve = false;
  EXPECT_EQ(failover.decide("t", view, now + seconds(100)), Step::none);
}

TEST_F(Gateway_failover, A_stopped_target_is_given_back) {
  auto view = running_at("me", "iscsid@me");
  view.is_ours = true;
  view.should_run = false;
  EXPECT_EQ(failover.decide("t", view, now), Step::give_back);
  view.is_ours = false;
  EXPECT_EQ(failover.decide("t", view, now), Step::none);
}

TEST_F(Gateway_failover, Failures_are_tried_again_after_growing_pauses) {
  auto view = running_at("me", "iscsid@me");
  view.is_ours = true;
  for (int pause : {1, 2, 4, 8, 16, 30, 30}) {
    EXPECT_EQ(failover.decide("t", view, now), Step::start);
    failover.failed("t", now);
    EXPECT_EQ(failover.decide("t", view, now + (seconds(pause) - std::chrono::milliseconds(1))),
              Step::none);
    now = now + seconds(pause);
  }
  failover.succeeded("t");
  EXPECT_EQ(failover.decide("t", view, now), Step::start);
}

TEST_F(Gateway_failover, An_unregistered_target_is_nobody_s) {
  EXPECT_EQ(failover.decide("t", running_at("", ""), now), Step::none);
  EXPECT_EQ(failover.decide("t", running_at("", ""), now + seconds(60)), Step::none);
}

}  // namespace
}  // namespace pstorage::iscsi
