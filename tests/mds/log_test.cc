#include <gtest/gtest.h>

#include "mds/log/segment.h"
#include "mds/log/single_log.h"
#include "tests/mds/fakes.h"
#include "tests/sim/sim_disk.h"

namespace pstorage::mds {
namespace {

using sim::Disk_call;

class Collector final : public Log_listener {
 public:
  void on_committed(std::vector<Committed_entry> entries) override {
    ++batches;
    for (auto& entry : entries) {
      EXPECT_EQ(entry.index, first + committed.size()) << "a gap or a repetition";
      committed.push_back(std::move(entry.bytes));
    }
  }
  void on_log_failed(Failure const& why) override { failures.push_back(why.text); }
  std::uint64_t first = 1;
  int batches = 0;
  std::vector<std::string> committed;
  std::vector<std::string> failures;
};

class Log_on_disk : public ::testing::Test {
 protected:
  static constexpr std::uint64_t segment_bytes = 64u << 10;

  std::unique_ptr<Single_log> make() {
    return std::make_unique<Single_log>(disk_, random_, log_, Single_log_options{segment_bytes});
  }
  /// A log that has started with `listener`.
  std::unique_ptr<Single_log> started(Collector& listener, std::uint64_t applied = 0) {
    listener.first = applied + 1;
    auto log = make();
    auto const result = log->start(applied, listener);
    EXPECT_TRUE(result.has_value()) << (result.has_value() ? "" : result.error().text);
    return log;
  }
  std::string start_error(std::uint64_t applied = 0) {
    Collector listener;
    listener.first = applied + 1;
    auto const result = make()->start(applied, listener);
    return result.has_value() ? "" : result.error().text;
  }
  void settle() { queue_.run_until(queue_.now() + std::chrono::seconds(1)); }
  /// Proposes `count` entries of `bytes`, one a batch.
  void append(Single_log& log, int count, std::size_t bytes = 100) {
    for (int i = 0; i < count; ++i) {
      ASSERT_TRUE(log.propose(entry(next_++, bytes)).has_value());
      log.flush();
      settle();
    }
  }
  static std::string entry(int number, std::size_t bytes = 100) {
    auto text = "entry " + std::to_string(number) + " ";
    text.resize(std::max(text.size(), bytes), 'x');
    return text;
  }

  sim::Event_queue queue_;
  Test_random random_;
  Quiet_log log_;
  sim::Sim_disk disk_{queue_, random_};
  int next_ = 0;
};

TEST_F(Log_on_disk, An_entry_is_committed_only_after_the_sync) {
  Collector listener;
  auto log = started(listener);
  EXPECT_EQ(log->propose("a").value(), 1u);
  log->flush();
  EXPECT_TRUE(listener.committed.empty());
  settle();
  EXPECT_EQ(listener.committed, std::vector<std::string>{"a"});
  EXPECT_EQ(log->committed(), 1u);
}

TEST_F(Log_on_disk, Entries_that_come_while_a_sync_runs_share_the_next_one) {
  Collector listener;
  auto log = started(listener);
  (void)log->propose("a");
  log->flush();
  for (int i = 0; i < 50; ++i) {
    EXPECT_TRUE(log->propose(entry(i)).has_value());
    log->flush();
  }
  settle();
  EXPECT_EQ(listener.committed.size(), 51u);
  EXPECT_EQ(listener.batches, 2);
  EXPECT_EQ(log->commits(), 2u);
}

TEST_F(Log_on_disk, A_restart_replays_what_the_database_has_not_applied) {
  {
    Collector listener;
    auto log = started(listener);
    append(*log, 30);
  }
  Collector all;
  EXPECT_EQ(started(all)->committed(), 30u);
  EXPECT_EQ(all.committed.size(), 30u);
  Collector some;
  started(some, 20);
  EXPECT_EQ(some.committed.size(), 10u);
  EXPECT_EQ(some.committed.front(), entry(20));
}

TEST_F(Log_on_disk, Segments_follow_each_other_and_old_ones_are_cut) {
  Collector listener;
  auto log = started(listener);
  append(*log, 40, 3000);
  EXPECT_GT(disk_.list("log").value().size(), 3u);
  log->cut(31);
  log.reset();
  EXPECT_NE(start_error(0).find("the log begins at entry"), std::string::npos);
  Collector rest;
  started(rest, 30);
  EXPECT_EQ(rest.committed.size(), 10u);
}

TEST_F(Log_on_disk, Committed_entries_survive_any_power_loss_and_a_torn_tail_is_cut) {
  for (int round = 0; round < 300; ++round) {
    Collector listener;
    auto const before = static_cast<std::size_t>(next_);
    auto log = started(listener);
    ASSERT_GE(listener.committed.size(), before) << "round " << round;
    // Entries that were under way may have made it; then they count.
    next_ = static_cast<int>(listener.committed.size());
    for (std::size_t i = 0; i < listener.committed.size(); ++i) {
      ASSERT_EQ(listener.committed[i], entry(static_cast<int>(i), listener.committed[i].size()));
    }
    append(*log, 2, 100 + random_.below(9000));
    ASSERT_TRUE(log->propose(entry(next_, 100 + random_.below(20000))).has_value());
    log->flush();
    if (random_.below(2) == 0) queue_.step();
    log.reset();
    disk_.crash();
  }
}

TEST_F(Log_on_disk, A_damaged_entry_in_the_middle_refuses_to_start) {
  {
    Collector listener;
    auto log = started(listener);
    append(*log, 5);
  }
  disk_.flip(segment_name(1), frame_alignment * 3 + 60, 1);
  auto const error = start_error();
  EXPECT_NE(error.find("does not match its checksum and later ones are there"), std::string::npos)
      << error;
}

TEST_F(Log_on_disk, A_lost_segment_refuses_to_start) {
  {
    Collector listener;
    auto log = started(listener);
    append(*log, 60, 3000);
  }
  ASSERT_TRUE(disk_.remove(segment_name(2)).has_value());
  EXPECT_NE(start_error(), "");
}

TEST_F(Log_on_disk, A_log_that_is_older_than_the_database_refuses_to_start) {
  {
    Collector listener;
    auto log = started(listener);
    append(*log, 5);
  }
  EXPECT_NE(start_error(6).find("the log has lost durable entries"), std::string::npos);
}

TEST_F(Log_on_disk, A_segment_of_another_log_refuses_to_start) {
  {
    Collector listener;
    auto log = started(listener);
    append(*log, 30, 3000);
  }
  sim::Sim_disk other(queue_, random_);
  {
    Single_log log(other, random_, log_, {segment_bytes});
    Collector listener;
    ASSERT_TRUE(log.start(0, listener).has_value());
    settle();
  }
  std::vector<std::byte> content(segment_bytes);
  ASSERT_TRUE(other.open(segment_name(2), {}).value()->read(0, content).has_value());
  ASSERT_TRUE(disk_.open(segment_name(2), {}).value()->write(0, content).has_value());
  EXPECT_NE(start_error().find("belongs to another log"), std::string::npos);
}

TEST_F(Log_on_disk, A_failed_sync_ends_the_log_and_commits_nothing) {
  Collector listener;
  auto log = started(listener);
  settle();
  disk_.set_fault([](Disk_call call, std::string const&) -> std::optional<std::error_code> {
    if (call == Disk_call::sync) return std::make_error_code(std::errc::io_error);
    return std::nullopt;
  });
  ASSERT_TRUE(log->propose("a").has_value());
  log->flush();
  settle();
  EXPECT_TRUE(listener.committed.empty());
  ASSERT_EQ(listener.failures.size(), 1u);
  EXPECT_NE(listener.failures[0].find("cannot sync the metadata log"), std::string::npos);
  EXPECT_FALSE(log->propose("b").has_value());
}

TEST_F(Log_on_disk, A_full_disk_refuses_entries_until_there_is_room_and_loses_none) {
  Collector listener;
  auto log = started(listener);
  settle();
  disk_.set_capacity(disk_.used_bytes());
  std::size_t accepted = 0;
  Errc refusal = Errc::ok;
  for (int i = 0; i < 100 && refusal == Errc::ok; ++i) {
    auto const proposed = log->propose(entry(static_cast<int>(accepted), 3000));
    if (proposed.has_value()) {
      ++accepted;
    } else {
      refusal = errc_of(proposed.error().code);
    }
    log->flush();
    settle();
    log->tick();
  }
  EXPECT_EQ(refusal, Errc::no_space);
  EXPECT_EQ(listener.committed.size(), accepted);
  EXPECT_TRUE(listener.failures.empty());
  disk_.set_capacity(sim::unlimited_bytes);
  log->tick();
  settle();
  EXPECT_TRUE(log->propose(entry(static_cast<int>(accepted), 3000)).has_value());
  log->flush();
  settle();
  EXPECT_EQ(listener.committed.size(), accepted + 1);
  log.reset();
  Collector again;
  started(again);
  EXPECT_EQ(again.committed.size(), accepted + 1);
}

TEST_F(Log_on_disk, Whatever_disk_call_fails_nothing_is_acknowledged_and_lost) {
  // Fail the 1st, 2nd, 3rd, ... call of a run; then the disk works again and we look.
  for (std::uint64_t nth = 1; nth < 60; ++nth) {
    sim::Event_queue queue;
    sim::Sim_disk disk(queue, random_);
    std::uint64_t calls = 0;
    disk.set_fault([&](Disk_call, std::string const&) -> std::optional<std::error_code> {
      if (++calls == nth) return std::make_error_code(std::errc::io_error);
      return std::nullopt;
    });
    Collector listener;
    {
      Single_log log(disk, random_, log_, {segment_bytes});
      if (log.start(0, listener).has_value()) {
        for (int i = 0; i < 30; ++i) {
          (void)log.propose(entry(i, 3000));
          log.flush();
          queue.run_until(queue.now() + std::chrono::milliseconds(50));
        }
      }
    }
    disk.set_fault({});
    disk.crash();
    Collector again;
    Single_log log(disk, random_, log_, {segment_bytes});
    auto const restarted = log.start(0, again);
    ASSERT_TRUE(restarted.has_value()) << "call " << nth << ": " << restarted.error().text;
    ASSERT_GE(again.committed.size(), listener.committed.size()) << "call " << nth;
    for (std::size_t i = 0; i < listener.committed.size(); ++i) {
      ASSERT_EQ(again.committed[i], listener.committed[i]) << "call " << nth;
    }
  }
}

TEST_F(Log_on_disk, An_entry_larger_than_a_segment_is_refused) {
  Collector listener;
  auto log = started(listener);
  auto const proposed = log->propose(std::string(segment_bytes, 'x'));
  ASSERT_FALSE(proposed.has_value());
  EXPECT_EQ(errc_of(proposed.error().code), Errc::too_large);
}

}  // namespace
}  // namespace pstorage::mds
