// Virtual disks on the local file system: what a command line works with.
#pragma once

#include <memory>
#include <string>

#include "blockdev/ploop/image_directory.h"
#include "blockdev/ploop/run_queue.h"
#include "core/disk/file_descriptor.h"
#include "core/disk/io_pool.h"
#include "core/disk/posix_disk.h"

namespace pstorage::ploop {

/// A path, cut in two.
struct Local_path {
  std::string directory;  // absolute
  std::string name;
};
Local_path split_path(std::string const& path);

/// One directory, with the loop its stores need. Thread: one.
class Local_directory {
 public:
  /// Errors: the root file system cannot be opened.
  static Outcome<std::unique_ptr<Local_directory>> open(std::string const& directory);
  Local_directory(Local_directory const&) = delete;
  Local_directory& operator=(Local_directory const&) = delete;

  Image_directory& images() { return *images_; }
  Executor& executor() { return queue_; }
  Turn turn();

  /// Takes DESCRIPTOR.lck for the rest of this object's life, as ploop does. Errors: busy.
  Outcome<void> lock(std::string const& descriptor);

 private:
  Local_directory() = default;

  std::string path_;
  Io_pool pool_;
  Run_queue queue_;
  std::unique_ptr<Disk> disk_;
  std::unique_ptr<Disk_directory> images_;
  File_descriptor lock_;
};

}  // namespace pstorage::ploop
