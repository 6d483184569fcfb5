#include "core/net/event_loop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <thread>

namespace pstorage::test {
namespace {

constexpr Duration soon = std::chrono::seconds(5);

/// One end of a socket pair in the loop; the other end is the test's.
struct Side final : Event_handler {
  explicit Side(Event_loop& loop) : watch(loop, *this) {
    int pair[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    watch.open(File_descriptor(pair[0]));
    other = File_descriptor(pair[1]);
  }
  void on_ready(Readiness ready) override {
    told.push_back(ready);
    if (react) react();
  }
  void write_from_peer() { EXPECT_EQ(::write(other.get(), "x", 1), 1); }

  Watch watch;
  File_descriptor other;
  std::vector<Readiness> told;
  std::function<void()> react;
};

TEST(Event_loop, What_arrives_is_told_once) {
  Event_loop loop;
  Side side(loop);
  EXPECT_FALSE(loop.run_turn(Duration::zero()));
  side.write_from_peer();
  EXPECT_TRUE(loop.run_turn(soon));
  EXPECT_FALSE(loop.run_turn(Duration::zero()));
  ASSERT_EQ(side.told.size(), 1u);
  EXPECT_TRUE(side.told[0].readable);
  EXPECT_FALSE(side.told[0].writable);
  EXPECT_FALSE(side.told[0].ended);
  side.write_from_peer();  // though the first byte was not read
  EXPECT_TRUE(loop.run_turn(soon));
  EXPECT_EQ(side.told.size(), 2u);
}

TEST(Event_loop, The_end_is_told_with_the_bytes_before_it) {
  Event_loop loop;
  Side side(loop);
  side.write_from_peer();
  side.other = {};
  EXPECT_TRUE(loop.run_turn(soon));
  ASSERT_EQ(side.told.size(), 1u);
  EXPECT_TRUE(side.told[0].readable && side.told[0].ended);
}

TEST(Event_loop, Again_needs_no_event) {
  Event_loop loop;
  Side side(loop);
  side.watch.again();
  EXPECT_TRUE(loop.run_turn(Duration::max()));
  ASSERT_EQ(side.told.size(), 1u);
  EXPECT_TRUE(side.told[0].readable);
  side.watch.again();
  side.watch.close();
  loop.run_turn(Duration::zero());
  EXPECT_EQ(side.told.size(), 1u);
}

TEST(Event_loop, Writable_is_told_when_asked_for_and_then_no_more) {
  Event_loop loop;
  Side side(loop);
  std::array<char, 65536> bytes{};
  while (::write(side.watch.fd(), bytes.data(), bytes.size()) > 0) continue;
  side.watch.wait_writable();
  EXPECT_FALSE(loop.run_turn(Duration::zero()));
  auto const drain = [&] {
    while (::read(side.other.get(), bytes.data(), bytes.size()) > 0) continue;
  };
  drain();
  EXPECT_TRUE(loop.run_turn(soon));
  ASSERT_EQ(side.told.size(), 1u);
  EXPECT_TRUE(side.told[0].writable);
  // Not for every buffer that the peer takes from now on.
  EXPECT_GT(::write(side.watch.fd(), bytes.data(), bytes.size()), 0);
  drain();
  EXPECT_FALSE(loop.run_turn(Duration::zero()));
}

// Its descriptor may have been given to another one by then.
TEST(Event_loop, What_was_closed_in_the_same_turn_hears_nothing) {
  Event_loop loop;
  Side first(loop), second(loop);
  first.write_from_peer();
  second.write_from_peer();
  first.react = [&] { second.watch.close(); };
  second.react = [&] { first.watch.close(); };
  EXPECT_TRUE(loop.run_turn(soon));
  EXPECT_EQ(first.told.size() + second.told.size(), 1u);
  Side third(loop);  // takes over the place of the closed one
  loop.run_turn(Duration::zero());
  EXPECT_TRUE(third.told.empty());
}

TEST(Event_loop, Work_posted_by_another_thread_wakes_it) {
  Event_loop loop;
  int runs = 0;
  std::thread helper([&] {
    ::usleep(20'000);
    for (int i = 0; i < 3; ++i) loop.post([&] { ++runs; });
  });
  while (runs < 3) loop.run_turn(Duration::max());
  helper.join();
  // Also from inside: not in this turn, but without sleeping in between.
  loop.post([&] { loop.post([&] { ++runs; }); });
  loop.run_turn(Duration::max());
  EXPECT_EQ(runs, 3);
  loop.run_turn(Duration::max());
  EXPECT_EQ(runs, 4);
}

TEST(Event_loop, Missed_ticks_are_made_up_for_by_one) {
  Event_loop loop;
  int ticks = 0;
  loop.set_tick(std::chrono::milliseconds(5), [&] { ++ticks; });
  ::usleep(50'000);
  loop.run_turn(Duration::max());
  EXPECT_EQ(ticks, 1);
  loop.run_turn(Duration::max());
  EXPECT_EQ(ticks, 2);
}

TEST(Event_loop, Signals_come_as_events) {
  Event_loop loop;
  int signals = 0;
  loop.handle_signals([&] { ++signals; });
  ::kill(::getpid(), SIGTERM);
  loop.run_turn(soon);
  ::kill(::getpid(), SIGINT);
  loop.run_turn(soon);
  EXPECT_EQ(signals, 2);
}

}  // namespace
}  // namespace pstorage::test
