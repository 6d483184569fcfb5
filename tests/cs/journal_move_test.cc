#include "cs/journal_move.h"

#include "tests/cs/sim_store.h"

namespace pstorage::cs {
namespace {

constexpr Chunk_id chunk_id{5};
char const* const ssd_path = "/ssd/cs.journal";

/// A chunk server with a disk and an SSD beside it, stopped in order.
class Journal_move_test : public testing::Test {
 protected:
  void make() {
    one_ = std::make_unique<Sim_store>(7);
    ssd_ = std::make_unique<sim::Sim_disk>(one_->queue, one_->random);
    one_->must_start();
    one_->make_chunk(chunk_id);
    ASSERT_EQ(one_->write(chunk_id, 3, 2, 41), Errc::ok);
    ASSERT_EQ(one_->stop(), Errc::ok);
    one_->die(false);
  }
  Open_journal_directory open() {
    return [this](std::string const& path) -> Outcome<std::shared_ptr<Disk>> {
      Disk* const disk = path.empty() ? &one_->disk : ssd_.get();
      return std::shared_ptr<Disk>(std::shared_ptr<void>(), disk);
    };
  }
  Outcome<void> move(std::string const& to, std::uint64_t ring_bytes = 0) {
    PS_TRY(auto identity, load_identity(one_->disk));
    return move_journal(one_->disk, identity, {to, ring_bytes, ++salt_, {}}, open());
  }
  /// The repository, whatever journal it has now, starts, holds what it held and takes writes.
  void check(std::uint64_t stamp) {
    auto const identity = load_identity(one_->disk);
    ASSERT_TRUE(identity.has_value()) << identity.error().text;
    one_->options.salt = identity.value().salt;
    one_->options.journal_name = journal_file_name(identity.value().journal);
    one_->journal_disk =
        identity.value().journal.empty() ? nullptr : static_cast<Disk*>(ssd_.get());
    one_->must_start();
    EXPECT_TRUE(one_->holds(chunk_id, 3, 41));
    EXPECT_TRUE(one_->holds(chunk_id, 4, stamp == 42 ? 41 : stamp - 1));
    // And keeps them over a power loss: the journal is really used.
    ASSERT_EQ(one_->write(chunk_id, 4, 1, stamp), Errc::ok);
    ASSERT_EQ(one_->flush({7}), Errc::ok);
    one_->die(true);
    ssd_->crash();
    one_->must_start();
    EXPECT_TRUE(one_->holds(chunk_id, 3, 41));
    EXPECT_TRUE(one_->holds(chunk_id, 4, stamp));
    ASSERT_EQ(one_->stop(), Errc::ok);
    one_->die(false);
  }
  std::size_t journals() {
    return (one_->disk.exists("journal") ? 1u : 0u) + ssd_->list("").value().size();
  }
  /// The Nth call of any disk fails, and all later ones when the process `dies`.
  void fail_at(std::uint64_t nth, bool dies, bool& met) {
    auto const left = std::make_shared<std::uint64_t>(nth);
    auto const fault = [left, dies, &met](sim::Disk_call,
                                          std::string const&) -> std::optional<std::error_code> {
      if (*left != 0) {
        --*left;
        return std::nullopt;
      }
      bool const fails = dies || !met;
      met = true;
      if (!fails) return std::nullopt;
      return std::error_code(EIO, std::system_category());
    };
    one_->disk.set_fault(fault);
    ssd_->set_fault(fault);
  }

  std::unique_ptr<Sim_store> one_;
  std::unique_ptr<sim::Sim_disk> ssd_;
  std::uint64_t salt_ = 1000;
};

TEST_F(Journal_move_test, The_journal_goes_elsewhere_moves_and_comes_back) {
  make();
  ASSERT_TRUE(move(ssd_path).has_value());
  EXPECT_EQ(journals(), 1u);
  EXPECT_FALSE(one_->disk.exists("journal"));
  check(42);
  ASSERT_TRUE(move("/ssd/other.journal", 2u << 20).has_value());
  EXPECT_EQ(ssd_->list("").value(), std::vector<std::string>{"other.journal"});
  check(43);
  ASSERT_TRUE(move("").has_value());
  EXPECT_TRUE(one_->disk.exists("journal"));
  EXPECT_EQ(journals(), 1u);
  EXPECT_FALSE(one_->disk.exists("journal.move"));
  check(44);
}

TEST_F(Journal_move_test, A_journal_with_work_left_stays) {
  make();
  one_->must_start();
  ASSERT_EQ(one_->write(chunk_id, 9, 1, 77), Errc::ok);
  one_->die(false);
  auto const refused = move(ssd_path);
  ASSERT_TRUE(refused.has_error());
  EXPECT_EQ(errc_of(refused.error().code), Errc::busy);
  EXPECT_EQ(journals(), 1u);
  one_->must_start();
  EXPECT_TRUE(one_->holds(chunk_id, 9, 77));
}

TEST_F(Journal_move_test, Nothing_that_is_there_is_overwritten) {
  make();
  auto const foreign = ssd_->open("cs.journal", {.create = true});
  ASSERT_TRUE(foreign.value()->write(0, as_bytes("somebody else's")).has_value());
  EXPECT_EQ(errc_of(move(ssd_path).error().code), Errc::exists);
  EXPECT_EQ(foreign.value()->size().value(), 15u);
  check(42);
}

TEST_F(Journal_move_test, Cut_off_anywhere_it_leaves_one_journal_and_can_be_repeated) {
  for (bool const back : {false, true}) {
    for (bool const dies : {false, true}) {
      std::uint64_t nth = 0;
      for (;; ++nth) {
        make();
        if (back) {
          ASSERT_TRUE(move(ssd_path).has_value());
        }
        std::string const to = back ? "" : ssd_path;
        bool met = false;
        fail_at(nth, dies, met);
        bool const done = move(to).has_value();
        one_->disk.set_fault(nullptr);
        ssd_->set_fault(nullptr);
        if (dies) {
          one_->disk.crash();
          ssd_->crash();
        }
        if (!met) {
          EXPECT_TRUE(done);
          break;
        }
        SCOPED_TRACE("call " + std::to_string(nth) + (dies ? ", dies" : "") +
                     (back ? ", back" : ""));
        ASSERT_NO_FATAL_FAILURE(check(42));
        auto const now = load_identity(one_->disk).value();
        ASSERT_TRUE(finish_journal_move(one_->disk, open()).has_value());
        if (now.journal != to) {
          auto const again = move(to);
          ASSERT_TRUE(again.has_value()) << again.error().text;
        }
        EXPECT_EQ(journals(), 1u);
        EXPECT_FALSE(one_->disk.exists("journal.move"));
        ASSERT_NO_FATAL_FAILURE(check(43));
      }
      EXPECT_GT(nth, 12u);
    }
  }
}

}  // namespace
}  // namespace pstorage::cs
