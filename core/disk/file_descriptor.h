// Owner of a file descriptor.
#pragma once

#include <unistd.h>

#include <utility>

namespace pstorage {

/// Closes its descriptor. -1 = none. Movable, not copyable.
class File_descriptor {
 public:
  File_descriptor() = default;
  explicit File_descriptor(int fd) : fd_(fd) {}
  File_descriptor(File_descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File_descriptor& operator=(File_descriptor other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~File_descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  explicit operator bool() const { return fd_ >= 0; }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

}  // namespace pstorage
