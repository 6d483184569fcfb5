#include "core/cli/keeper.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace pstorage::cli {
namespace {

sigset_t awaited() {
  sigset_t set;
  ::sigemptyset(&set);
  for (int const signal : {SIGTERM, SIGINT, SIGCHLD}) ::sigaddset(&set, signal);
  return set;
}

std::int64_t seconds_now() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return now.tv_sec;
}

}  // namespace

Keeper::Keeper(std::string file, int& starter)
    : file_(std::move(file)),
      starter_(starter),
      was_ready_(static_cast<bool*>(::mmap(nullptr, sizeof(bool), PROT_READ | PROT_WRITE,
                                           MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
  if (was_ready_ == MAP_FAILED) was_ready_ = nullptr;
  lock_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ >= 0 && ::flock(lock_, LOCK_EX | LOCK_NB) != 0) ::close(std::exchange(lock_, -1));
  if (lock_ >= 0 && ::ftruncate(lock_, 0) == 0) {
    auto const pid = std::to_string(::getpid()) + "\n";
    [[maybe_unused]] auto const written = ::pwrite(lock_, pid.data(), pid.size(), 0);
  }
}

/// True in the daemon.
bool Keeper::start() {
  daemon_ = ::fork();
  if (daemon_ == 0) {
    auto const set = awaited();
    ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
    if (lock_ >= 0) ::close(lock_);
    return true;
  }
  if (!std::exchange(is_detached_, true)) detach_streams();
  return false;
}

/// Passes SIGTERM on until the daemon has ended; its wait status.
int Keeper::wait_for_end() {
  auto const set = awaited();
  while (true) {
    int status = 0;
    if (::waitpid(daemon_, &status, WNOHANG) == daemon_) return status;
    int const signal = ::sigwaitinfo(&set, nullptr);
    if (signal != SIGTERM && signal != SIGINT) continue;
    told_to_stop_ = true;
    ::kill(daemon_, signal);
  }
}

/// False: it was told to stop meanwhile.
bool Keeper::pause(int failures) const {
  auto const set = awaited();
  auto const wanted =
      std::min<std::int64_t>(std::int64_t{1} << std::min(failures - 1, 10), pause_max.count());
  auto const until = seconds_now() + wanted;
  for (auto left = wanted; left > 0; left = until - seconds_now()) {
    timespec const at_most{left, 0};
    int const signal = ::sigtimedwait(&set, nullptr, &at_most);
    if (signal == SIGTERM || signal == SIGINT) return false;
  }
  return true;
}

void Keeper::end(int status) const {
  if (lock_ >= 0) ::unlink(file_.c_str());
  ::_exit(status);
}

bool Keeper::run() {
  if (was_ready_ == nullptr) return false;
  auto const set = awaited();
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  int failures = 0;
  while (true) {
    auto const begin = seconds_now();
    if (start()) return true;
    if (daemon_ < 0) end(1);
    int const status = wait_for_end();
    bool const is_clean = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (is_clean || told_to_stop_) end(is_clean ? 0 : 1);
    if (!*was_ready_) end(1);  // it could not start even once: it has said why
    // Held until here: whoever waits for a start that fails finds nothing of the keeper left.
    if (starter_ >= 0) ::close(std::exchange(starter_, -1));
    if (seconds_now() - begin >= steady.count()) failures = 0;
    if (++failures > failures_max || !pause(failures)) end(1);
  }
}

}  // namespace pstorage::cli
