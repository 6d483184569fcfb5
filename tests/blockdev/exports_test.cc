// Which volumes are open, and until when.
#include <gtest/gtest.h>

#include "tests/blockdev/nbd_client.h"

namespace pstorage::nbd::test {
namespace {

class Exports_test : public testing::Test {
 protected:
  Exports_test() : provider(loop.defer()), disk(provider.add("disk", 4096)) {}
  ~Exports_test() override { loop.run(); }

  client::Volume* acquire(Exports& exports) {
    // Shared: the answer may come long after this call.
    auto const got = std::make_shared<client::Volume*>(nullptr);
    exports.acquire("disk", [got](Outcome<client::Volume*> volume) {
      if (volume) *got = volume.value();
    });
    loop.run();
    return *got;
  }
  void wait(Exports& exports, Duration time) {
    clock.advance(time);
    exports.on_tick();
    loop.run();
    exports.on_tick();
  }

  Loop loop;
  Manual_clock clock;
  Counting_log log;
  Memory_provider provider;
  Memory_store& disk;
};

TEST_F(Exports_test, Clients_share_one_opening) {
  Exports exports(provider, clock, log, {});
  auto* const first = acquire(exports);
  auto* const second = acquire(exports);
  EXPECT_EQ(first, second);
  EXPECT_EQ(disk.opened, 1u);
  exports.release(*first);
  wait(exports, std::chrono::minutes(1));
  EXPECT_EQ(disk.open_now, 1u) << "one still uses it";
  exports.release(*second);
}

TEST_F(Exports_test, A_volume_that_grows_while_it_is_open_shows_it_to_later_clients) {
  Exports exports(provider, clock, log, {});
  auto* const volume = acquire(exports);
  disk.size = 8192;
  acquire(exports);
  acquire(exports);
  EXPECT_EQ(volume->size_bytes(), 8192u);
  disk.size = 4096;  // never smaller under its clients
  acquire(exports);
  acquire(exports);
  EXPECT_EQ(volume->size_bytes(), 8192u);
  EXPECT_EQ(disk.opened, 1u);
  for (int i = 0; i < 5; ++i) exports.release(*volume);
}

TEST_F(Exports_test, It_is_closed_a_while_after_the_last_client) {
  Exports exports(provider, clock, log, {});
  exports.release(*acquire(exports));
  wait(exports, Exports::idle_close - std::chrono::milliseconds(1));
  EXPECT_EQ(disk.open_now, 1u);
  wait(exports, std::chrono::milliseconds(1));
  EXPECT_EQ(disk.open_now, 0u);
  EXPECT_NE(acquire(exports), nullptr);
  EXPECT_EQ(disk.opened, 2u);
}

TEST_F(Exports_test, Named_volumes_stay_open) {
  Exports exports(provider, clock, log, {"disk"});
  bool opened = false;
  exports.open_named([&](Outcome<void> result) { opened = result.has_value(); });
  loop.run();
  EXPECT_TRUE(opened);
  wait(exports, std::chrono::minutes(1));
  EXPECT_EQ(disk.open_now, 1u);
}

TEST_F(Exports_test, A_named_volume_that_is_in_use_is_reported_once) {
  provider.add("other", 4096);
  disk.holder = "somebody";
  Exports exports(provider, clock, log, {"disk", "other"});
  int answers = 0;
  std::string why;
  exports.open_named([&](Outcome<void> result) {
    ++answers;
    if (!result) why = result.error().text;
  });
  loop.run();
  EXPECT_EQ(answers, 1);
  EXPECT_NE(why.find("somebody"), std::string::npos);
}

TEST_F(Exports_test, A_client_that_comes_while_it_closes_gets_a_new_opening) {
  Exports exports(provider, clock, log, {});
  exports.release(*acquire(exports));
  clock.advance(Exports::idle_close);
  exports.on_tick();  // closing, not closed
  EXPECT_NE(acquire(exports), nullptr);
  EXPECT_EQ(disk.opened, 2u);
}

TEST_F(Exports_test, A_lost_volume_is_not_shared_any_more) {
  Exports exports(provider, clock, log, {});
  auto* const lost = acquire(exports);
  exports.mark_lost(*lost);
  EXPECT_EQ(acquire(exports), nullptr) << "waits until the old one is gone";
  exports.release(*lost);
  loop.run();
  EXPECT_EQ(disk.opened, 2u);
}

TEST_F(Exports_test, Stopping_closes_everything_and_refuses_the_rest) {
  Exports exports(provider, clock, log, {});
  acquire(exports);
  bool stopped = false;
  exports.close_all([&] { stopped = true; });
  EXPECT_FALSE(stopped);
  EXPECT_EQ(acquire(exports), nullptr);
  loop.run();
  EXPECT_TRUE(stopped);
  exports.on_tick();
  EXPECT_EQ(disk.open_now, 0u);
}

TEST_F(Exports_test, Answers_after_the_end_reach_nobody) {
  {
    Exports exports(provider, clock, log, {});
    exports.acquire("disk", [](Outcome<client::Volume*>) { FAIL(); });
    exports.abandon_all();
  }
  loop.run();
}

}  // namespace
}  // namespace pstorage::nbd::test
