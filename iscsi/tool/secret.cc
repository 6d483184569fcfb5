#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include <cstdio>

#include "core/disk/atomic_file.h"
#include "core/disk/file_descriptor.h"
#include "iscsi/tool/commands.h"

namespace pstorage::iscsi {
namespace {

constexpr std::size_t secret_file_bytes_max = 1024;

std::string first_line(std::string text) {
  text.resize(std::min(text.find('\n'), text.size()));
  if (!text.empty() && text.back() == '\r') text.pop_back();
  return text;
}

}  // namespace

Outcome<std::string> read_secret(std::string const& path, std::string const& prompt) {
  if (!path.empty()) {
    PS_TRY(auto text, read_small_file(path == "-" ? "/dev/stdin" : path, secret_file_bytes_max));
    return first_line(std::move(text));
  }
  File_descriptor const terminal(::open("/dev/tty", O_RDWR | O_CLOEXEC));
  if (!terminal) {
    return failure(Errc::bad_request,
                   "no terminal to ask for the secret: give it with --secret-file FILE");
  }
  ::dprintf(terminal.get(), "%s", prompt.c_str());
  termios before{};
  bool const is_hidden = ::tcgetattr(terminal.get(), &before) == 0;
  termios hidden = before;
  hidden.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  if (is_hidden) ::tcsetattr(terminal.get(), TCSAFLUSH, &hidden);
  std::string line;
  char byte = 0;
  while (line.size() < secret_file_bytes_max && ::read(terminal.get(), &byte, 1) == 1 &&
         byte != '\n') {
    line.push_back(byte);
  }
  if (is_hidden) ::tcsetattr(terminal.get(), TCSAFLUSH, &before);
  ::dprintf(terminal.get(), "\n");
  return line;
}

}  // namespace pstorage::iscsi
