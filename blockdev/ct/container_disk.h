// The virtual disk of a container, at rest: filled from a local image file, without mounting it.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "blockdev/volume/tool_session.h"
#include "blockdev/volume/volume_opener.h"
#include "core/runtime/real_clock.h"

namespace pstorage::ct {

/// An ext4 file system in a sparse local file, gone with the object.
class Local_image {
 public:
  /// Errors: what mke2fs says. `directory`: its content, or empty.
  static Outcome<std::unique_ptr<Local_image>> make(std::uint64_t size_bytes,
                                                    std::string const& directory);
  ~Local_image();
  Local_image(Local_image const&) = delete;
  Local_image& operator=(Local_image const&) = delete;
  int fd() const { return fd_; }

 private:
  Local_image(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  int fd_;
  std::string path_;
};

/// A volume that is open in this tool. Every call waits for its answer. Thread: one.
class Container_disk {
 public:
  /// Errors: busy (naming the holder), not_found.
  static Outcome<std::unique_ptr<Container_disk>> open(volume::Tool_session& session,
                                                       std::string const& name);
  /// Copies what is not a hole in `fd` to the same place; how much. Durable.
  Outcome<std::uint64_t> fill_from(int fd);
  /// Copies what is not a hole in `source`, which is as large.
  Outcome<std::uint64_t> fill_from(Container_disk& source);
  Outcome<void> close();

 private:
  explicit Container_disk(volume::Tool_session& session);
  bool turn();
  Outcome<void> write(std::uint64_t offset, Slice data);
  Outcome<void> drain(std::size_t left);

  volume::Tool_session& session_;
  Real_clock clock_;
  Silent_log log_;
  ploop::Turn turn_;
  volume::Volume_opener opener_;
  std::unique_ptr<client::Volume> volume_;
  std::size_t in_flight_ = 0;
  std::error_code error_;
};

}  // namespace pstorage::ct
