#include "blockdev/mount/file_lease.h"

#include <gtest/gtest.h>

namespace pstorage::mount {
namespace {

class Lease : public ::testing::Test {
 protected:
  Step next() const { return lease_.next(now_); }
  void take(Step step) {
    ASSERT_EQ(next(), step);
    lease_.begin(step);
    lease_.taken(step == Step::take_shared ? Hold::shared : Hold::exclusive);
  }
  void give_back() {
    ASSERT_EQ(next(), Step::give_back);
    lease_.begin(Step::give_back);
    lease_.given_back();
  }
  void pass(Duration duration) { now_ = now_ + duration; }

  Time_point now_{std::chrono::hours(1)};
  File_lease lease_;
};

TEST_F(Lease, Nobody_needs_nothing) {
  EXPECT_EQ(next(), Step::wait);
  EXPECT_FALSE(lease_.may_start(false, now_));
}

TEST_F(Lease, A_reader_takes_a_shared_one_and_keeps_it_for_a_while) {
  lease_.add_user(false);
  take(Step::take_shared);
  EXPECT_TRUE(lease_.may_start(false, now_));
  EXPECT_FALSE(lease_.may_start(true, now_));
  lease_.remove_user(false, now_);
  EXPECT_EQ(next(), Step::wait);
  pass(File_lease::idle_shared);
  give_back();
  EXPECT_EQ(next(), Step::wait);
}

TEST_F(Lease, A_writer_beside_readers_takes_the_exclusive_one_when_operations_have_ended) {
  lease_.add_user(false);
  take(Step::take_shared);
  lease_.start_operation();
  lease_.add_user(true);
  EXPECT_EQ(next(), Step::wait);
  EXPECT_FALSE(lease_.may_start(false, now_)) << "or the change would never come";
  lease_.end_operation();
  take(Step::take_exclusive);
  EXPECT_TRUE(lease_.may_start(true, now_));
  EXPECT_TRUE(lease_.may_start(false, now_));
}

TEST_F(Lease, An_idle_one_is_given_back_at_once_to_who_waits_for_it) {
  lease_.add_user(true);
  take(Step::take_exclusive);
  lease_.wanted(true);
  EXPECT_EQ(next(), Step::wait) << "it is in use";
  lease_.remove_user(true, now_);
  give_back();
}

TEST_F(Lease, A_shared_one_stays_when_somebody_wants_to_read) {
  lease_.add_user(false);
  take(Step::take_shared);
  lease_.remove_user(false, now_);
  lease_.wanted(false);
  EXPECT_EQ(next(), Step::wait);
  lease_.wanted(true);
  give_back();
}

TEST_F(Lease, Readers_share_what_a_writer_has_left_them) {
  lease_.add_user(false);
  lease_.add_user(true);
  take(Step::take_exclusive);
  lease_.remove_user(true, now_);
  EXPECT_EQ(next(), Step::wait);
  lease_.wanted(false);
  give_back();
  take(Step::take_shared);
}

TEST_F(Lease, Readers_are_soon_content_with_less_than_a_writer_left) {
  lease_.add_user(false);
  lease_.add_user(true);
  take(Step::take_exclusive);
  pass(std::chrono::seconds(5));
  EXPECT_EQ(next(), Step::wait);
  lease_.remove_user(true, now_);
  EXPECT_EQ(next(), Step::wait);
  pass(File_lease::idle_exclusive);
  // The size of the file would be known here only, for as long as somebody reads it.
  give_back();
  take(Step::take_shared);
}

TEST_F(Lease, Nothing_starts_while_the_lease_is_on_its_way) {
  lease_.add_user(false);
  lease_.begin(next());
  EXPECT_TRUE(lease_.is_moving());
  EXPECT_FALSE(lease_.may_start(false, now_));
  EXPECT_EQ(next(), Step::wait);
  lease_.refused();
  EXPECT_EQ(next(), Step::take_shared);
}

TEST_F(Lease, A_removed_file_is_given_back_with_its_last_user) {
  lease_.add_user(true);
  take(Step::take_exclusive);
  lease_.removed();
  EXPECT_EQ(next(), Step::wait);
  lease_.remove_user(true, now_);
  EXPECT_EQ(next(), Step::give_back);
}

TEST_F(Lease, Operations_delay_the_return) {
  lease_.add_user(true);
  take(Step::take_exclusive);
  lease_.start_operation();
  lease_.remove_user(true, now_);
  lease_.stop();
  EXPECT_EQ(next(), Step::wait);
  lease_.end_operation();
  EXPECT_EQ(next(), Step::give_back);
}

TEST_F(Lease, A_lost_one_makes_the_handles_of_before_dead) {
  lease_.add_user(true);
  take(Step::take_exclusive);
  auto const before = lease_.generation();
  lease_.lost();
  EXPECT_NE(lease_.generation(), before);
  EXPECT_EQ(lease_.hold(), Hold::none);
}

}  // namespace
}  // namespace pstorage::mount
