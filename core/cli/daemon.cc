#include "core/cli/daemon.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
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

#include "core/cli/keeper.h"
#include "core/disk/atomic_file.h"

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

char const* notify_socket() {
  char const* const path = std::getenv("NOTIFY_SOCKET");
  return path != nullptr && (*path == '/' || *path == '@') ? path : nullptr;
}

/// sd_notify(3): one datagram to the service manager, if there is one.
void notify(std::string const& state) {
  char const* const path = notify_socket();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  auto const size = path == nullptr ? 0 : std::strlen(path);
  if (size == 0 || size >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, path, size);
  if (*path == '@') address.sun_path[0] = '\0';  // an abstract address
  int const fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  auto const length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + size);
  [[maybe_unused]] auto const sent = ::sendto(fd, state.data(), state.size(), MSG_NOSIGNAL,
                                              reinterpret_cast<sockaddr const*>(&address), length);
  ::close(fd);
}

}  // namespace

void detach_streams() {
  int const null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  for (int const stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null, stream);
  ::close(null);
}

Daemon_start::Daemon_start(bool background, std::string const& keeper_file) {
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
  if (keeper_file.empty()) return;
  if (Keeper keeper(keeper_file, pipe_); keeper.run()) was_ready_ = keeper.ready_flag();
}

Daemon_start::~Daemon_start() {
  if (pipe_ >= 0) ::close(pipe_);
}

void Daemon_start::ready() {
  if (was_ready_ != nullptr) *was_ready_ = true;
  notify("READY=1");
  if (pipe_ < 0) return;
  write_all(pipe_, std::string(1, ready_mark));
  ::close(std::exchange(pipe_, -1));
  detach_streams();
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

Outcome<std::string> log_path(std::string const& given, std::string const& repository,
                              bool background) {
  if (!given.empty() || (!background && notify_socket() == nullptr)) return given;
  PS_CHECK(make_directories(repository + "/logs"));
  return repository + "/logs/log";
}

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
