// The Nth call to the disk fails, for every N: nothing is acknowledged that is not kept.
#include "tests/cs/sim_store.h"

namespace pstorage::cs {
namespace {

constexpr Chunk_id chunk{0x77};
constexpr std::uint64_t stamp(std::uint32_t sequence) { return Stamp::of({1}, sequence).value; }

enum class Failure_kind { once, for_good, no_space };

/// What was promised before the store gave up.
struct Promises {
  std::map<std::uint32_t, std::uint64_t> acknowledged;  // block -> stamp
  std::map<std::uint32_t, std::uint64_t> flushed;
  std::map<std::uint32_t, std::set<std::uint64_t>> submitted;
  Epoch sealed;
  bool finished = false;
};

class Failure_run {
 public:
  Failure_run(std::uint64_t nth, Failure_kind kind) : nth_(nth), kind_(kind), world_(nth * 3 + 1) {
    world_.options.idle_after = std::chrono::milliseconds(100);
    world_.options.chunks.open_files_max = 1;
  }

  /// False when the scenario came to its end without meeting the Nth call.
  bool run(bool power_loss) {
    std::uint64_t const calls_before = world_.disk.calls();
    world_.disk.set_fault([&, calls_before](sim::Disk_call call,
                                            std::string const&) -> std::optional<std::error_code> {
      std::uint64_t const number = world_.disk.calls() - calls_before;
      if (number < nth_ || (number > nth_ && kind_ != Failure_kind::for_good)) {
        return std::nullopt;
      }
      met_ = true;
      bool const full = kind_ == Failure_kind::no_space && call != sim::Disk_call::read &&
                        call != sim::Disk_call::sync;
      return std::error_code(full ? ENOSPC : EIO, std::system_category());
    });
    scenario();
    world_.disk.set_fault(nullptr);
    world_.die(power_loss);
    world_.must_start();
    if (!testing::Test::HasFailure()) check(power_loss);
    return met_;
  }

 private:
  void write(std::uint32_t first, std::uint32_t blocks) {
    std::uint64_t const next = stamp(++sequence_);
    for (std::uint32_t i = 0; i < blocks; ++i) promises_.submitted[first + i].insert(next);
    auto const loaded = world_.store->load(chunk);
    if (loaded.has_error()) return;
    if (world_.write(chunk, first, blocks, next) != Errc::ok) return;
    for (std::uint32_t i = 0; i < blocks; ++i) promises_.acknowledged[first + i] = next;
  }
  void flush() {
    auto const covered = promises_.acknowledged;
    if (world_.flush({7}) == Errc::ok) promises_.flushed = covered;
  }
  void scenario() {
    if (world_.start().has_error()) return;
    if (world_.store->create(chunk, {7}, 2u << 20, {1}).has_error()) return;
    write(0, 3);
    write(250, 12);
    write(100, 40);
    flush();
    Errc sealed = Errc::timed_out;
    world_.store->seal({7}, {3}, [&](Errc done) { sealed = done; });
    write(1, 1);
    world_.run(std::chrono::milliseconds(300));
    if (sealed == Errc::ok) promises_.sealed = {3};
    write(110, 20);
    write(2, 6);
    flush();
    write(255, 2);
    world_.run(std::chrono::milliseconds(300));
    static_cast<void>(world_.stop());
    promises_.finished = true;
  }
  void check(bool power_loss) {
    auto const& kept = power_loss ? promises_.flushed : promises_.acknowledged;
    EXPECT_GE(world_.store->seal_of({7}), promises_.sealed);
    if (kept.empty()) return;
    ASSERT_TRUE(world_.store->load(chunk).has_value()) << "call " << nth_;
    for (auto const& [block, promised] : kept) {
      std::uint64_t const found = world_.store->block_record(world_.chunk(chunk), block).stamp;
      EXPECT_GE(found, promised) << "call " << nth_ << " block " << block;
      EXPECT_TRUE(promises_.submitted[block].contains(found)) << "call " << nth_;
      if (world_.read(chunk, block, 1).status == Errc::corrupt) {
        // Torn by the power failure: only where a later write had not been flushed.
        EXPECT_TRUE(power_loss && found > promised) << "call " << nth_ << " block " << block;
      } else {
        EXPECT_TRUE(world_.holds(chunk, block, found)) << "call " << nth_ << " block " << block;
      }
    }
  }

  std::uint64_t nth_;
  Failure_kind kind_;
  Sim_store world_;
  Promises promises_;
  std::uint32_t sequence_ = 0;
  bool met_ = false;
};

class Store_failure : public testing::TestWithParam<Failure_kind> {};

TEST_P(Store_failure, The_nth_failing_call_never_breaks_a_promise) {
  for (bool const power_loss : {false, true}) {
    std::uint64_t nth = 1;
    for (bool met = true; met && !HasFailure(); ++nth) {
      Failure_run run(nth, GetParam());
      met = run.run(power_loss);
      ASSERT_LT(nth, 2000u);
    }
    EXPECT_GT(nth, 40u);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Store_failure,
                         testing::Values(Failure_kind::once, Failure_kind::for_good,
                                         Failure_kind::no_space));

}  // namespace
}  // namespace pstorage::cs
