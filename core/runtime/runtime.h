// The real environment of a process: one loop, its clock, network, disks, randomness and log.
// Everything a role gets by constructor comes from here; simulated twins are in tests/sim.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/env/clock.h"
#include "core/env/disk.h"
#include "core/env/executor.h"
#include "core/env/network.h"
#include "core/env/random.h"
#include "core/log.h"
#include "core/net/identity.h"

namespace pstorage {

/// For daemons that move large payloads: what a deep queue of 1 MiB requests has under way.
inline constexpr std::size_t daemon_shared_payload_bytes = 32u << 20;

struct Runtime_options {
  Identity identity;
  int cpu_affinity = -1;      // CPU number; -1 = anywhere
  unsigned busy_poll_us = 0;  // spin this long before sleeping
  std::size_t connections_max = 4096;
  std::size_t unauthenticated_max = 128;
  Duration handshake_timeout = std::chrono::seconds(5);
  /// Memory for large payloads that other processes on this host read in place; 0: they are copied.
  std::size_t shared_payload_bytes = 0;
  bool handle_signals = true;  // SIGTERM and SIGINT end run()
};

/// Thread: create, use and destroy on one thread. run() is its loop.
class Runtime {
 public:
  /// `log` must outlive the runtime.
  Runtime(Runtime_options options, Log& log);
  ~Runtime();
  Runtime(Runtime const&) = delete;
  Runtime& operator=(Runtime const&) = delete;

  Clock& clock();
  Network& network();
  Random& random();
  Log& log();
  /// Runs what it is given after the current event, before the loop sleeps. Thread: the loop's.
  Executor& executor();
  /// The tree under `root` (must exist). Errors: the system's, with a line for a person.
  Outcome<std::unique_ptr<Disk>> open_disk(std::string const& root);

  /// `ticker` is called every tick_interval until removed.
  void add_ticker(Ticker& ticker);
  void remove_ticker(Ticker& ticker);
  /// Runs `work` on the loop, soon. Thread: any.
  void post(std::function<void()> work);
  /// Runs `work`, which may block, on a helper thread and then `done` on the loop, if it still
  /// runs.
  void run_off_loop(std::function<void()> work, std::function<void()> done);
  /// Called once when SIGTERM or SIGINT arrives, instead of stop(): a clean shutdown.
  void set_stop_handler(std::function<void()> handler);
  /// Runs until stop().
  void run();
  void stop();
  /// One turn for synchronous users (the command line): waits at most `at_most`, handles what
  /// there is.
  void run_turn(Duration at_most);

  class Implementation;  // core/runtime/runtime.cc; the NBD server takes its loop from it
  Implementation& implementation() { return *implementation_; }

 private:
  std::unique_ptr<Implementation> implementation_;
};

/// "program[pid]@host": the name in hellos and sessions.
std::string process_name();

/// A log whose level may be changed while it is used, by any thread.
class Leveled_log : public Log {
 public:
  virtual void set_level(Log_level level) = 0;
};

/// How much log is kept: a file that would grow beyond `file_bytes_max` becomes PATH.1, what was
/// PATH.1 becomes PATH.2, and so on up to PATH.`old_files`.
struct Log_limits {
  std::uint64_t file_bytes_max = 16u << 20;
  unsigned old_files = 4;
};

/// Log lines to standard error and, when `path` is not empty, to that file (opened for appending).
/// Format: "2026-01-31 12:34:56.789 W message key=value". Errors: cannot open the file.
Outcome<std::unique_ptr<Leveled_log>> make_log(std::string const& path, Log_level level,
                                               Log_limits limits = {});

}  // namespace pstorage
