// Image_store over one file of the Disk seam.
#pragma once

#include <memory>

#include "blockdev/ploop/image_store.h"
#include "core/env/disk.h"
#include "core/env/executor.h"

namespace pstorage::ploop {

/// Does everything inside the call (for command lines: nobody else waits for this thread) and
/// answers through `executor`.
Result<std::unique_ptr<Image_store>> open_disk_store(std::unique_ptr<File> file,
                                                     Executor& executor);

}  // namespace pstorage::ploop
