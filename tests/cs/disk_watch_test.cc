#include "cs/disk_watch.h"

#include "cs/disk_probe.h"
#include "tests/cs/sim_store.h"

namespace pstorage::cs {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Disk_watch, Tells_the_age_of_the_oldest_request) {
  Disk_watch watch;
  Time_point const begin{seconds(100)};
  EXPECT_EQ(watch.stalled(begin), Duration{0});
  auto const first = watch.begin(begin);
  auto const second = watch.begin(begin + seconds(2));
  EXPECT_EQ(watch.stalled(begin + seconds(5)), seconds(5));
  watch.end(first);
  EXPECT_EQ(watch.stalled(begin + seconds(5)), seconds(3));
  auto const third = watch.begin(begin + seconds(5));
  EXPECT_EQ(third, first);  // places are used again
  watch.end(second);
  watch.end(third);
  EXPECT_EQ(watch.stalled(begin + seconds(9)), Duration{0});
}

TEST(Store_latency, A_hung_disk_shows_while_it_hangs) {
  Sim_store one(3);
  one.must_start();
  one.make_chunk({5});
  one.run(seconds(5));
  EXPECT_EQ(one.store->stalled(one.queue.now()), Duration{0});
  one.disk.stall_until(one.queue.now() + seconds(20));
  ASSERT_EQ(one.write({5}, 0, 1, 9), Errc::ok);
  one.run(seconds(6));
  EXPECT_GT(one.store->stalled(one.queue.now()), seconds(4));
  one.run(seconds(20));
  EXPECT_EQ(one.store->stalled(one.queue.now()), Duration{0});
}

TEST(Store_latency, A_disk_that_nobody_uses_is_measured_when_it_is_asked_for) {
  Sim_store one(3);
  one.must_start();
  one.run(seconds(60));
  EXPECT_EQ(one.store->latency().summary(one.queue.now()).average_us, 0u);
  one.disk.set_slowness(milliseconds(300));
  one.store->set_probing(true);
  one.run(seconds(10));
  EXPECT_GT(one.store->latency().summary(one.queue.now()).average_us, 200'000u);
  EXPECT_TRUE(one.disk.exists("probe"));
  one.disk.set_slowness({});
  one.run(seconds(25));
  EXPECT_LT(one.store->latency().summary(one.queue.now()).average_us, 20'000u);
  one.store->set_probing(false);
  one.run(seconds(3));
  EXPECT_FALSE(one.disk.exists("probe"));
  // What probing wrote into the journal says nothing: everything starts as before.
  one.die(true);
  one.must_start();
}

TEST(Store_latency, Probing_wraps_the_journal) {
  Sim_store one(3, {}, 512u << 10);
  one.must_start();
  one.make_chunk({5});
  one.store->set_probing(true);
  for (int round = 0; round < 40; ++round) {
    one.run(seconds(10));
    ASSERT_EQ(one.write({5}, static_cast<std::uint32_t>(round), 1, 100u + round), Errc::ok);
  }
  one.die(true);
  one.must_start();
  for (std::uint32_t block = 0; block < 39; ++block)
    EXPECT_TRUE(one.holds({5}, block, 100u + block));
}

}  // namespace
}  // namespace pstorage::cs
