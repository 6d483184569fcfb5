// What every daemon does around its loop: background, being started again, lock, pid file.
#pragma once

#include <string>

#include "core/result.h"

namespace pstorage::cli {

/// Goes to the background when asked to; the starter waits until the daemon says that it serves, so
/// that its exit status and its one error line can be trusted.
class Daemon_start {
 public:
  /// Forks with `background`; returns in the child only. With `keeper_file`, too, the process
  /// between starter and daemon stays and starts the daemon again when it fails after it was ready
  /// (at most failures_max times in a row, with growing pauses), until it ends with 0 or SIGTERM
  /// comes; its pid is in that file meanwhile. Call before anything starts a thread.
  explicit Daemon_start(bool background, std::string const& keeper_file = {});
  ~Daemon_start();  // not ready until now: the starter reports a failure
  Daemon_start(Daemon_start const&) = delete;
  Daemon_start& operator=(Daemon_start const&) = delete;

  /// The daemon serves: the starter ends with 0, and standard streams are detached; a service
  /// manager that waits for it (NOTIFY_SOCKET) is told.
  void ready();
  /// It will not: `why` is printed by whoever still has the terminal.
  void failed(std::string const& program, std::string const& why);

 private:
  int pipe_ = -1;              // to the starter; -1 in the foreground
  bool* was_ready_ = nullptr;  // shared with the keeper; null: there is none
};

/// An exclusive lock on a file, until the end of the object or of the process.
class File_lock {
 public:
  /// Creates the file if it is missing. Errors: busy, naming the process that holds it.
  static Outcome<File_lock> acquire(std::string const& path);
  ~File_lock();
  File_lock(File_lock&& other) noexcept;
  File_lock& operator=(File_lock&&) = delete;

 private:
  explicit File_lock(int fd) : fd_(fd) {}
  int fd_;
};

/// Writes the process id to `path`; the file goes with the object.
class Pid_file {
 public:
  explicit Pid_file(std::string path);
  ~Pid_file();
  Pid_file(Pid_file const&) = delete;
  Pid_file& operator=(Pid_file const&) = delete;

 private:
  std::string path_;
};

/// Where the log of the daemon of `repository` goes: `given`, or DIR/logs/log (whose directory is
/// made) in the background or under a service manager, or nowhere but standard error ("").
Outcome<std::string> log_path(std::string const& given, std::string const& repository,
                              bool background);

/// Resident memory of this process in bytes.
std::uint64_t resident_bytes();
/// Processor time of this process so far in microseconds.
std::uint64_t processor_us();
/// The host's name without its domain.
std::string host_name();

}  // namespace pstorage::cli
