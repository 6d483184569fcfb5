// The loop behind Runtime. Included only by what brings its own sockets to it (the NBD server).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/disk/io_pool.h"
#include "core/net/event_loop.h"
#include "core/net/socket_network.h"
#include "core/net/turn_flusher.h"
#include "core/runtime/real_clock.h"
#include "core/runtime/runtime.h"

namespace pstorage {

/// One turn: wait for events, handle them, the turn hook, then every flusher. Thread: the one that
/// runs the loop, except post().
class Runtime::Implementation final : private Executor {
 public:
  Implementation(Runtime_options options, Log& log);
  ~Implementation() override;

  Event_loop& loop() { return loop_; }
  Io_pool& pool() { return pool_; }
  /// `flusher` is called at the end of every turn until removed.
  void add_flusher(Turn_flusher& flusher);
  void remove_flusher(Turn_flusher& flusher);

 private:
  friend class Runtime;

  // Work that defers more work, over and over, must let the sockets in.
  static constexpr int deferred_rounds_a_turn = 16;

  void defer(std::function<void()> work) override;
  void run_deferred();
  // Checked this often: did the last burst end, so that its memory can go back to the system?
  static constexpr unsigned ticks_a_memory_check = 500;
  static constexpr std::uint64_t busy_turns = 2500;

  void return_memory();
  void apply_placement();
  void on_tick();
  void on_signal();
  bool spin();
  /// Duration::max(): until something happens.
  void run_turn(Duration at_most);

  Runtime_options options_;
  Log& log_;
  Turn_clock clock_;
  Real_random random_;
  Event_loop loop_;
  Io_pool pool_;
  std::vector<Ticker*> tickers_;  // nullptr: removed during a tick
  std::vector<Turn_flusher*> flushers_;
  std::vector<std::function<void()>> deferred_;
  std::vector<std::function<void()>> running_deferred_;
  std::function<void()> stop_handler_;
  std::unique_ptr<Socket_network> network_;
  bool stopped_ = false;
  unsigned ticks_ = 0;
  std::uint64_t turns_ = 0;       // since the last memory check
  bool memory_is_loose_ = false;  // there was a burst since memory was last returned
};

}  // namespace pstorage
