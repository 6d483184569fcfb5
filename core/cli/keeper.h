// Starts a daemon again that has failed, on hosts without a service manager.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>

namespace pstorage::cli {

/// Standard input, output and error become /dev/null.
void detach_streams();

/// The parent of a daemon, from the first start until it ends on purpose. Its own loop is a few
/// signals: it has no state that could be lost, and nothing of the daemon's.
class Keeper {
 public:
  /// `file` gets the keeper's pid, unless it is another one's that runs; `starter`: the pipe to
  /// whoever waits for the first start; only the daemon writes to it.
  Keeper(std::string file, int& starter);
  /// Forks the daemon, in which it returns true. The keeper itself never returns: it ends with the
  /// daemon's last exit status.
  bool run();
  /// In the daemon: to be set once it serves.
  bool* ready_flag() const { return was_ready_; }

 private:
  static constexpr int failures_max = 10;  // in a row, each sooner than `steady`
  static constexpr auto steady = std::chrono::seconds(60);
  static constexpr auto pause_max = std::chrono::seconds(30);

  bool start();
  int wait_for_end();
  bool pause(int failures) const;
  [[noreturn]] void end(int status) const;

  std::string const file_;
  int lock_ = -1;  // on file_; -1: another keeper has it
  int& starter_;
  bool* was_ready_;
  pid_t daemon_ = -1;
  bool is_detached_ = false;
  bool told_to_stop_ = false;
};

}  // namespace pstorage::cli
