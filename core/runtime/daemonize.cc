#include "core/runtime/daemonize.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace pstorage {
namespace {

Failure cannot(std::string const& what) {
  std::error_code const code(errno, std::generic_category());
  return failure(code, "cannot go into the background: " + what + ": " + code.message());
}

[[noreturn]] void wait_for_child(int from_child) {
  char word = 0;
  ssize_t got;
  do {
    got = ::read(from_child, &word, 1);
  } while (got < 0 && errno == EINTR);
  ::_exit(got == 1 ? 0 : 1);
}

}  // namespace

Outcome<Background> Background::enter() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return cannot("pipe");
  File_descriptor const from_child(ends[0]);
  File_descriptor to_parent(ends[1]);
  auto const child = ::fork();
  if (child < 0) return cannot("fork");
  if (child > 0) {
    to_parent = File_descriptor();
    wait_for_child(from_child.get());
  }
  ::setsid();
  return Background(std::move(to_parent));
}

void Background::ready() {
  if (!tell_) return;
  File_descriptor const null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (int fd = STDIN_FILENO; null && fd <= STDERR_FILENO; ++fd) ::dup2(null.get(), fd);
  char const word = 1;
  // A parent that is gone needs no word.
  if (::write(tell_.get(), &word, 1) < 0) errno = 0;
  tell_ = File_descriptor();
}

}  // namespace pstorage
