#include "core/cli/password.h"

#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <string_view>

namespace pstorage::cli {
namespace {

constexpr std::size_t password_bytes_max = 1024;

/// A line of `fd`, read byte by byte: what follows the line is not ours.
Outcome<std::string> read_line(int fd) {
  std::string line;
  char byte = 0;
  while (true) {
    auto const got = ::read(fd, &byte, 1);
    if (got <= 0 || byte == '\n') break;
    if (line.size() == password_bytes_max) {
      return failure(Errc::too_large, "the password is longer than " +
                                          std::to_string(password_bytes_max) + " bytes");
    }
    line.push_back(byte);
  }
  if (!line.empty() && line.back() == '\r') line.pop_back();
  if (line.empty()) return failure(Errc::bad_request, "the password is empty");
  return line;
}

/// The terminal without echo, until the end of the scope.
class Hidden_input {
 public:
  explicit Hidden_input(int fd) : fd_(fd), is_changed_(::tcgetattr(fd, &before_) == 0) {
    if (!is_changed_) return;
    termios hidden = before_;
    hidden.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    ::tcsetattr(fd_, TCSAFLUSH, &hidden);
  }
  ~Hidden_input() {
    if (is_changed_) ::tcsetattr(fd_, TCSAFLUSH, &before_);
  }
  Hidden_input(Hidden_input const&) = delete;
  Hidden_input& operator=(Hidden_input const&) = delete;

 private:
  int fd_;
  termios before_{};
  bool is_changed_;
};

void say(int fd, std::string_view text) {
  [[maybe_unused]] auto const written = ::write(fd, text.data(), text.size());
}

Outcome<std::string> ask(int terminal, std::string_view prompt) {
  say(terminal, prompt);
  Hidden_input const hidden(terminal);
  auto line = read_line(terminal);
  say(terminal, "\n");
  return line;
}

}  // namespace

Outcome<std::string> read_password(bool from_stdin, bool confirm) {
  if (from_stdin) return read_line(STDIN_FILENO);
  int const terminal = ::open("/dev/tty", O_RDWR | O_CLOEXEC);
  if (terminal < 0) {
    return failure(Errc::bad_request,
                   "no terminal to ask for the password: give it on standard input with -P");
  }
  auto first = ask(terminal, "Password of the cluster: ");
  if (first.has_value() && confirm) {
    auto const second = ask(terminal, "Once more: ");
    if (!second.has_value() || second.value() != first.value()) {
      first = failure(Errc::bad_request, "the passwords differ");
    }
  }
  ::close(terminal);
  return first;
}

}  // namespace pstorage::cli
