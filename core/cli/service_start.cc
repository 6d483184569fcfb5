#include "core/cli/service_start.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace pstorage::cli {

Outcome<void> start_service(std::string const& name) {
  std::fflush(stdout);  // before what the service says
  std::string words[] = {"service", name, "start"};
  char* const arguments[] = {words[0].data(), words[1].data(), words[2].data(), nullptr};
  pid_t child = 0;
  int const spawned =
      ::posix_spawnp(&child, words[0].c_str(), nullptr, nullptr, arguments, environ);
  if (spawned != 0) {
    std::error_code const code(spawned, std::generic_category());
    return failure(code, "it is made, but cannot be started: cannot run 'service " + name +
                             " start': " + code.message());
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return success();
  return failure(Errc::io_error, "it is made, but 'service " + name +
                                     " start' failed: see above, then run that again");
}

}  // namespace pstorage::cli
