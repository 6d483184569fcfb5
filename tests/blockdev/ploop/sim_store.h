// A file that forgets: the simulated Image_store of the crash tests.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "blockdev/ploop/image_store.h"
#include "core/env/executor.h"
#include "core/env/random.h"

namespace pstorage::ploop::test {

/// splitmix64.
class Seeded final : public Random {
 public:
  explicit Seeded(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() override {
    state_ += 0x9e3779b97f4a7c15ULL;
    auto mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL;
    return mixed ^ (mixed >> 31);
  }
  bool percent(unsigned share) { return below(100) < share; }

 private:
  std::uint64_t state_;
};

/// Deferred work runs first, in order; completions of stores in any order.
class Sim_loop final : public Executor {
 public:
  explicit Sim_loop(Seeded& random) : random_(random) {}
  void defer(std::function<void()> work) override { deferred_.push_back(std::move(work)); }
  void complete(std::function<void()> work) { completions_.push_back(std::move(work)); }
  bool is_idle() const { return deferred_.empty() && completions_.empty(); }
  bool run_one();
  /// Forgets everything: the process died.
  void clear() {
    deferred_.clear();
    completions_.clear();
  }

 private:
  Seeded& random_;
  std::vector<std::function<void()>> deferred_;
  std::vector<std::function<void()>> completions_;
};

/// What is on the disk, what the page cache has, and every change between the two, in order.
class Sim_file {
 public:
  explicit Sim_file(Seeded& random) : random_(random) {}

  std::vector<std::byte> const& bytes() const { return now_; }
  std::unique_ptr<Image_store> open(Sim_loop& loop);

  /// Power lost: each change that is not durable is kept, dropped or torn at 512 bytes.
  void crash();
  /// The process was killed: what was answered stays, the rest is kept, dropped or torn.
  void kill();
  /// Fails every flush from now on, once each.
  void fail_flushes(bool fail) { fails_flushes_ = fail; }

 private:
  friend class Sim_store;
  struct Change {
    enum class Kind { write, zero, extend, truncate } kind;
    std::uint64_t offset = 0;  // or the new size
    std::uint64_t length = 0;
    std::vector<std::byte> data;
    bool is_answered = false;
    bool is_durable = false;
  };

  std::shared_ptr<Change> submit(Change change);
  static void apply(Change const& change, std::vector<std::byte>& to);
  void apply_torn(Change const& change);
  void compact();
  void settle(bool answered_stays);

  Seeded& random_;
  std::vector<std::byte> durable_;
  std::vector<std::byte> now_;
  std::vector<std::shared_ptr<Change>> changes_;
  bool fails_flushes_ = false;
};

}  // namespace pstorage::ploop::test
