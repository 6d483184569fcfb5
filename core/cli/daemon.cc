#include "core/cli/daemon.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <utility>

namespace pstorage::cli {
namespace {

constexpr char ready_mark = '+';

void write_all(int fd, std::string const& text) {
  [[maybe_unused]] auto const written = ::write(fd, text.data(), text.size());
}

/// The starter: passes on what the daemon says, and ends.
[[noreturn]] void wait_for_daemon(int from) {
  std::string said;
  std::array<char, 512> buffer;
  while (true) {
    auto const got = ::read(from, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    said.append(buffer.data(), static_cast<std::size_t>(got));
    if (said.front() == ready_mark) ::_exit(0);
  }
  if (said.empty()) said = "the daemon ended before it was ready: see its log\n";
  write_all(STDERR_FILENO, said);
  ::_exit(1);
}

}  // namespace

Daemon_start::Daemon_start(bool background) {
  if (!background) return;
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return;
  auto const child = ::fork();
  if (child < 0) {
    ::close(ends[0]);
    ::close(ends[1]);
    return;
  }
  if (child > 0) {
    ::close(ends[1]);
    wait_for_daemon(ends[0]);
  }
  ::close(ends[0]);
  ::setsid();
  pipe_ = ends[1];
}

Daemon_start::~Daemon_start() {
  if (pipe_ >= 0) ::close(pipe_);
}

void Daemon_start::ready() {
  if (pipe_ < 0) return;
  write_all(pipe_, std::string(1, ready_mark));
  ::close(std::exchange(pipe_, -1));
  int const null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  for (int const stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null, stream);
  ::close(null);
}

void Daemon_start::failed(std::string const& program, std::string const& why) {
  auto const line = program + ": " + why + "\n";
  if (pipe_ < 0) {
    write_all(STDERR_FILENO, line);
    return;
  }
  write_all(pipe_, line);
  ::close(std::exchange(pipe_, -1));
}

Outcome<File_lock> File_lock::acquire(std::string const& path) {
  int const fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) {
    std::error_code const error(errno, std::generic_category());
    return failure(error, "cannot open " + path + ": " + error.message());
  }
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    std::array<char, 32> holder{};
    auto const got = ::pread(fd, holder.data(), holder.size() - 1, 0);
    ::close(fd);
    std::string const pid(holder.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
    return failure(Errc::busy, path + " is locked: process " + (pid.empty() ? "unknown" : pid) +
                                   " uses this repository already");
  }
  auto const pid = std::to_string(::getpid());
  if (::ftruncate(fd, 0) == 0) {
    [[maybe_unused]] auto const written = ::pwrite(fd, pid.data(), pid.size(), 0);
  }
  return File_lock(fd);
}

File_lock::~File_lock() {
  if (fd_ >= 0) ::close(fd_);
}

File_lock::File_lock(File_lock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

Pid_file::Pid_file(std::string path) : path_(std::move(path)) {
  std::ofstream(path_) << ::getpid() << '\n';
}

Pid_file::~Pid_file() { ::unlink(path_.c_str()); }

std::uint64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t total = 0;
  std::uint64_t resident = 0;
  statm >> total >> resident;
  return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

std::uint64_t processor_us() {
  timespec used{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<std::uint64_t>(used.tv_sec) * 1'000'000 +
         static_cast<std::uint64_t>(used.tv_nsec) / 1000;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "localhost";
  return std::string(name.data(), std::strcspn(name.data(), "."));
}

}  // namespace pstorage::cli
