// One open file of posix_disk.
#pragma once

#include <memory>

#include "core/disk/file_descriptor.h"
#include "core/disk/posix_disk.h"

namespace pstorage {

/// Takes over `fd`. `random`: see Open_mode. Thread: the owner's loop.
Result<std::unique_ptr<File>> open_posix_file(File_descriptor fd, bool random, Io_pool& pool,
                                              Post post);

}  // namespace pstorage
