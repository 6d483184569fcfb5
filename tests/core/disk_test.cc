// Files on a real file system.
#include <gtest/gtest.h>

#include <random>

#include "tests/core/network_fixture.h"

namespace pstorage::test {
namespace {

class Posix_disk_test : public testing::Test {
 protected:
  Posix_disk_test() : runtime(options(), log), disk(runtime.open_disk(directory.path()).value()) {}

  bool turn_until(std::function<bool()> const& done) {
    auto const deadline = runtime.clock().now() + std::chrono::seconds(20);
    while (!done() && runtime.clock().now() < deadline)
      runtime.run_turn(std::chrono::milliseconds(10));
    return done();
  }
  static std::vector<std::byte> bytes(std::size_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<std::byte> result(count);
    for (auto& byte : result) byte = static_cast<std::byte>(random());
    return result;
  }

  Temporary_directory directory;
  Memory_log log;
  Runtime runtime;
  std::unique_ptr<Disk> disk;
};

TEST_F(Posix_disk_test, What_is_gathered_is_read_back) {
  for (bool const random : {false, true}) {
    auto file = disk->open(random ? "a" : "b", {.create = true, .random = random}).value();
    auto const one = bytes(100'000, 1), two = bytes(1, 2), three = bytes(300'000, 3);
    std::vector<Bytes> parts{one, two, Bytes{}, three};
    for (int i = 0; i < 200; ++i) parts.push_back(two);
    ASSERT_TRUE(file->write(12345, parts));
    std::vector<std::byte> expected = one;
    expected.insert(expected.end(), two.begin(), two.end());
    expected.insert(expected.end(), three.begin(), three.end());
    for (int i = 0; i < 200; ++i) expected.push_back(two[0]);
    std::vector<std::byte> got(expected.size());
    ASSERT_TRUE(file->read(12345, got));
    EXPECT_EQ(got, expected);
    EXPECT_EQ(file->size().value(), 12345 + expected.size());
    ASSERT_TRUE(file->read_cached(12345, got));
    EXPECT_EQ(got, expected);
  }
}

TEST_F(Posix_disk_test, Past_the_end_there_are_zeros) {
  auto file = disk->open("a", {.create = true}).value();
  ASSERT_TRUE(file->write(0, as_bytes("hello")));
  std::vector<std::byte> got(10, std::byte{1});
  ASSERT_TRUE(file->read(3, got));
  EXPECT_EQ(as_text(got), std::string_view("lo\0\0\0\0\0\0\0\0", 10));
  got.assign(10, std::byte{1});
  ASSERT_TRUE(file->read_cached(1000, got));
  EXPECT_EQ(got, std::vector<std::byte>(10));
}

TEST_F(Posix_disk_test, Punched_space_reads_as_zeros_and_returns) {
  auto file = disk->open("a", {.create = true}).value();
  ASSERT_TRUE(file->write(0, bytes(1u << 20, 1)));
  ASSERT_TRUE(file->sync());
  auto const before = file->allocated_bytes().value();
  ASSERT_TRUE(file->punch_hole(4096, 512 * 1024));
  EXPECT_LE(file->allocated_bytes().value(), before - 500 * 1024);
  EXPECT_EQ(file->size().value(), 1u << 20);
  std::vector<std::byte> got(4096);
  ASSERT_TRUE(file->read(8192, got));
  EXPECT_EQ(got, std::vector<std::byte>(4096));
  ASSERT_TRUE(file->truncate(100));
  EXPECT_EQ(file->size().value(), 100u);
}

TEST_F(Posix_disk_test, Asynchronous_work_completes_on_the_loop_never_inside_the_call) {
  auto file = disk->open("a", {.create = true}).value();
  auto const content = bytes(1u << 20, 9);
  ASSERT_TRUE(file->write(0, content));
  std::vector<std::byte> got(1u << 20);
  int done = 0;
  file->read_async(0, got, [&](Result<void> result) {
    EXPECT_TRUE(result);
    ++done;
  });
  for (int i = 0; i < 10; ++i)
    file->sync_async([&](Result<void> result) { done += result ? 1 : 0; });
  disk->sync_directory_async("", [&](Result<void> result) { done += result ? 1 : 0; });
  EXPECT_EQ(done, 0);
  ASSERT_TRUE(turn_until([&] { return done == 12; }));
  EXPECT_EQ(got, content);
}

TEST_F(Posix_disk_test, No_completion_comes_after_the_file_is_gone) {
  for (int i = 0; i < 50; ++i) {
    auto file = disk->open("a", {.create = true}).value();
    std::vector<std::byte> got(4096);
    file->read_async(0, got, [](Result<void>) { FAIL(); });
    file->sync_async([](Result<void>) { FAIL(); });
    file.reset();
  }
  runtime.run_turn(std::chrono::milliseconds(20));
}

TEST_F(Posix_disk_test, Errors_are_codes) {
  EXPECT_EQ(errc_of(disk->open("none", {}).error()), Errc::not_found);
  ASSERT_TRUE(disk->open("a", {.create = true, .exclusive = true}));
  EXPECT_EQ(disk->open("a", {.create = true, .exclusive = true}).error(), std::errc::file_exists);
  EXPECT_FALSE(disk->list("none"));
  EXPECT_FALSE(disk->remove("none"));
  EXPECT_FALSE(disk->make_directory("none/below"));
  bool failed = false;
  disk->sync_directory_async("none", [&](Result<void> result) { failed = !result; });
  EXPECT_TRUE(turn_until([&] { return failed; }));
  auto const missing = runtime.open_disk("/nonexistent");
  EXPECT_NE(missing.error().text.find("/nonexistent"), std::string::npos);
}

TEST_F(Posix_disk_test, Directories_and_names) {
  ASSERT_TRUE(disk->make_directory("chunks"));
  ASSERT_TRUE(disk->make_directory("chunks/01"));
  { auto const file = disk->open("chunks/01/x", {.create = true}); }
  EXPECT_TRUE(disk->exists("chunks/01/x"));
  ASSERT_TRUE(disk->rename("chunks/01/x", "chunks/y"));
  EXPECT_FALSE(disk->exists("chunks/01/x"));
  auto names = disk->list("chunks").value();
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"01", "y"}));
  EXPECT_FALSE(disk->remove("chunks")) << "not empty";
  ASSERT_TRUE(disk->remove("chunks/01"));
  ASSERT_TRUE(disk->remove("chunks/y"));
  ASSERT_TRUE(disk->remove("chunks"));
  ASSERT_TRUE(disk->sync_directory(""));
  EXPECT_TRUE(disk->list("").value().empty());
  auto const space = disk->space().value();
  EXPECT_GT(space.total_bytes, 0u);
  EXPECT_LE(space.free_bytes, space.total_bytes);
}

TEST_F(Posix_disk_test, A_full_disk_is_no_space) {
  auto const full = runtime.open_disk("/dev");
  ASSERT_TRUE(full);
  auto file = full.value()->open("full", {});
  ASSERT_TRUE(file);
  EXPECT_EQ(errc_of(file.value()->write(0, as_bytes("x")).error()), Errc::no_space);
}

class Counting_ticker final : public Ticker {
 public:
  void on_tick() override {
    ++ticks;
    if (on_first && ticks == 1) on_first();
  }
  int ticks = 0;
  std::function<void()> on_first;
};

TEST(Runtime_test, Ticks_come_and_may_change_who_gets_them) {
  Memory_log log;
  Runtime runtime(options(), log);
  Counting_ticker first, second;
  first.on_first = [&] {
    runtime.remove_ticker(first);
    runtime.add_ticker(second);
  };
  runtime.add_ticker(first);
  auto const start = runtime.clock().now();
  while (second.ticks < 5 && runtime.clock().now() - start < std::chrono::seconds(10))
    runtime.run_turn(std::chrono::milliseconds(50));
  EXPECT_EQ(first.ticks, 1);
  EXPECT_EQ(second.ticks, 5);
  EXPECT_GE(runtime.clock().now() - start, std::chrono::milliseconds(50));
  runtime.remove_ticker(second);
}

TEST(Runtime_test, Work_from_other_threads_runs_on_the_loop) {
  Memory_log log;
  auto busy = options();
  busy.busy_poll_us = 100;
  busy.cpu_affinity = 0;
  Runtime runtime(busy, log);
  int ran = 0;
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) runtime.post([&] { ++ran; });
    runtime.post([&] { runtime.stop(); });
  });
  runtime.run();
  other.join();
  EXPECT_EQ(ran, 1000);
}

class Hook final : public Turn_hook {
 public:
  explicit Hook(std::vector<std::string>& order) : order_(order) {}
  void on_turn_end() override { order_.push_back("hook"); }

 private:
  std::vector<std::string>& order_;
};

TEST(Runtime_test, Deferred_work_runs_before_the_hook_of_its_turn) {
  Memory_log log;
  Runtime runtime(options(), log);
  std::vector<std::string> order;
  Hook hook(order);
  runtime.network().set_turn_hook(&hook);
  runtime.post([&] {
    runtime.executor().defer([&] {
      order.push_back("deferred");
      runtime.executor().defer([&] { order.push_back("deferred again"); });
    });
    order.push_back("event");
  });
  while (order.size() < 4) runtime.run_turn(std::chrono::milliseconds(1));
  auto const first = std::find(order.begin(), order.end(), "event");
  EXPECT_EQ(std::vector(first, first + 4),
            (std::vector<std::string>{"event", "deferred", "deferred again", "hook"}));
}

TEST(Runtime_test, A_stop_handler_replaces_the_stop_and_a_second_signal_does_not_wait) {
  Memory_log log;
  auto with_signals = options();
  with_signals.handle_signals = true;
  Runtime runtime(with_signals, log);
  int asked = 0;
  runtime.set_stop_handler([&] {
    ++asked;
    ::raise(SIGTERM);
  });
  runtime.post([] { ::raise(SIGTERM); });
  runtime.run();
  EXPECT_EQ(asked, 1);
}

}  // namespace
}  // namespace pstorage::test
