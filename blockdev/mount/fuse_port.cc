#include "blockdev/mount/fuse_port.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utility>

namespace pstorage::mount {

Fuse_port::Fuse_port(Event_loop& loop, std::function<void()> on_end)
    : on_end_(std::move(on_end)), watch_(loop, *this) {}

Fuse_port::~Fuse_port() {
  unmount();
  watch_.close();
  // Requests that were never answered point into the session: it goes with the process.
  ::free(buffer_.mem);
}

Outcome<void> Fuse_port::mount(fuse_lowlevel_ops const& operations, void* user,
                               std::string const& mount_point, std::string const& options) {
  std::string program = "pstorage-mount";
  std::string flag = "-o";
  std::string text = options;
  char* arguments[] = {program.data(), flag.data(), text.data(), nullptr};
  fuse_args args = FUSE_ARGS_INIT(3, arguments);
  session_ = ::fuse_session_new(&args, &operations, sizeof operations, user);
  if (session_ == nullptr) {
    return failure(Errc::bad_request, "mount options '" + options + "' are not understood");
  }
  if (::fuse_session_mount(session_, mount_point.c_str()) != 0) {
    return failure(Errc::refused, "cannot mount on '" + mount_point +
                                      "': it has to be an empty directory, and /dev/fuse has to be "
                                      "usable (see above)");
  }
  mounted_ = true;
  int const fd = ::fuse_session_fd(session_);
  int const flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return failure(std::error_code(errno, std::system_category()), "cannot use /dev/fuse");
  }
  // libfuse closes its own descriptor.
  int const watched = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (watched < 0) {
    return failure(std::error_code(errno, std::system_category()), "cannot use /dev/fuse");
  }
  watch_.open(File_descriptor(watched));
  watch_.again();
  return success();
}

void Fuse_port::unmount() {
  if (session_ != nullptr && std::exchange(mounted_, false)) ::fuse_session_unmount(session_);
}

void Fuse_port::on_ready(Readiness) {
  for (int i = 0; i < requests_a_turn; ++i) {
    int const received = ::fuse_session_receive_buf(session_, &buffer_);
    if (received == -EINTR) continue;
    if (received == -EAGAIN) return;
    if (received <= 0) return end();
    ::fuse_session_process_buf(session_, &buffer_);
    if (::fuse_session_exited(session_) != 0) return end();
  }
  watch_.again();
}

void Fuse_port::end() {
  watch_.close();
  mounted_ = false;
  if (auto const ended = std::exchange(on_end_, nullptr)) ended();
}

}  // namespace pstorage::mount
