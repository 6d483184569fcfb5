// Reads every block once in a period and compares it with its checksum, in the gaps that the
// clients leave. What it finds is repaired by Block_healer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/env/clock.h"
#include "core/env/random.h"
#include "core/ids.h"
#include "cs/store.h"

namespace pstorage::cs {

/// How many bytes may be read by now. Pure. Busy servers scrub just fast enough to keep the period,
/// idle ones a few times as fast.
class Scrub_pacer {
 public:
  /// period 0: never. `bytes`: what there is to read.
  void set(Duration period, std::uint64_t bytes);
  /// Time has passed; `is_busy`: clients have been served since the last call.
  void advance(Duration time, bool is_busy);
  bool may_read(std::uint64_t bytes) const { return allowance_ >= static_cast<double>(bytes); }
  void took(std::uint64_t bytes) { allowance_ -= static_cast<double>(bytes); }

 private:
  double rate_ = 0;  // bytes a second that keep the period
  double allowance_ = 0;
};

/// Thread: the owner's loop.
class Scrubber {
 public:
  /// Blocks of a chunk whose content does not match their records.
  using Report = std::function<void(Chunk_id, std::vector<std::uint32_t> const& blocks)>;

  Scrubber(Clock& clock, Random& random, Store& store, Report report);

  /// 0: never. Takes effect at once.
  void set_period(Duration period) { period_ = period; }
  /// `is_busy`: clients were served since the last tick.
  void on_tick(bool is_busy);
  /// Reads all of `chunk` now, whatever the pace; `done` with the bad blocks.
  void check(Chunk_id chunk, std::function<void(Errc, std::vector<std::uint32_t>)> done);

  std::uint64_t scrubbed_bytes() const { return scrubbed_bytes_; }
  std::uint64_t errors() const { return errors_; }
  /// Chunks of the round that are done: every one of them was read since it began.
  std::uint64_t rounds() const { return rounds_; }

 private:
  struct Pass {  // over one chunk
    Chunk_id chunk;
    std::uint32_t offset = 0;
    std::uint32_t streak = 0;  // windows since the last tick
    std::vector<std::uint32_t> bad;
    std::function<void(Errc, std::vector<std::uint32_t>)> done;  // null: the scrubber's own
  };

  void next_chunk();
  void read_next(std::shared_ptr<Pass> const& pass);
  void read_done(std::shared_ptr<Pass> const& pass, std::uint32_t length, Read_result& result);
  void finish(Pass& pass, Errc status);

  Clock& clock_;
  Random& random_;
  Store& store_;
  Report report_;
  Scrub_pacer pacer_;
  Duration period_{0};
  Time_point last_tick_{};
  Chunk_id cursor_;
  bool started_ = false;
  bool waits_ = false;                         // own_ may go on when the pacer lets it
  std::vector<std::shared_ptr<Pass>> checks_;  // go on with the next tick
  std::shared_ptr<Pass> own_;
  std::uint64_t scrubbed_bytes_ = 0;
  std::uint64_t errors_ = 0;
  std::uint64_t rounds_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pstorage::cs
