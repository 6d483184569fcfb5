// Going to the background, and the keeper that starts a daemon again.
#include "core/cli/daemon.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "tests/core/network_fixture.h"

namespace pstorage::cli {
namespace {

/// The exit status of a process that starts a kept daemon; `daemon` runs in the daemon.
int start(std::string const& keeper_file, std::function<void(Daemon_start&)> const& daemon) {
  auto const starter = ::fork();
  if (starter == 0) {
    Daemon_start kept(true, keeper_file);
    daemon(kept);
    ::_exit(0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(starter, &status, 0), starter);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Keeper, Nothing_of_it_is_left_when_the_starter_says_that_the_daemon_failed) {
  test::Temporary_directory const directory;
  auto const file = directory.path("keeper");
  for (int i = 0; i < 20; ++i) {
    auto const status = start(file, [](Daemon_start& daemon) {
      daemon.failed("testd", "cannot start");
      ::_exit(1);
    });
    EXPECT_EQ(status, 1);
    ASSERT_FALSE(std::filesystem::exists(file)) << "round " << i;
  }
}

TEST(Keeper, Its_pid_is_in_its_file_when_the_starter_says_that_the_daemon_serves) {
  test::Temporary_directory const directory;
  auto const file = directory.path("keeper");
  auto const status = start(file, [](Daemon_start& daemon) {
    daemon.ready();
    ::pause();  // until the keeper passes SIGTERM on
  });
  EXPECT_EQ(status, 0);
  pid_t keeper = 0;
  std::ifstream(file) >> keeper;
  ASSERT_GT(keeper, 1);
  EXPECT_EQ(::kill(keeper, SIGTERM), 0);
}

}  // namespace
}  // namespace pstorage::cli
