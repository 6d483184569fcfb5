#include "blockdev/volume/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "core/disk/file_descriptor.h"

namespace pstorage::volume {
namespace {

constexpr std::size_t output_max = 1u << 20;

/// What is there now; false at the end.
bool read_some(int fd, std::string& output) {
  std::array<char, 4096> buffer{};
  for (;;) {
    pollfd ready{fd, POLLIN, 0};
    if (::poll(&ready, 1, 0) <= 0) return true;
    auto const count = ::read(fd, buffer.data(), buffer.size());
    if (count <= 0) return false;
    if (output.size() < output_max) output.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

}  // namespace

bool has_program(std::string const& program) {
  auto const* const path = std::getenv("PATH");
  std::istringstream directories(path == nullptr ? "/usr/bin:/bin" : path);
  for (std::string one; std::getline(directories, one, ':');)
    if (::access((std::filesystem::path(one) / program).c_str(), X_OK) == 0) return true;
  return false;
}

Outcome<std::string> run_program(std::vector<std::string> const& words,
                                 std::function<void()> const& turn) {
  if (!has_program(words.front()))
    return failure(Errc::not_found, words.front() + " is not installed");
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return failure(Errc::io_error, "no pipe can be made");
  File_descriptor const from(ends[0]);
  File_descriptor to(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, to.get(), STDOUT_FILENO);
  std::vector<char*> arguments;
  for (auto const& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_t child = 0;
  auto const failed =
      ::posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) return failure(Errc::io_error, words.front() + " cannot be started");
  to = File_descriptor(-1);
  std::string output;
  int status = 0;
  bool is_open = true;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (is_open) is_open = read_some(from.get(), output);
    turn();
  }
  read_some(from.get(), output);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return output;
  auto const how = WIFEXITED(status) ? "exit status " + std::to_string(WEXITSTATUS(status))
                                     : "signal " + std::to_string(WTERMSIG(status));
  return failure(Errc::io_error, words.front() + " failed: " + how + " (its message is above)");
}

}  // namespace pstorage::volume
