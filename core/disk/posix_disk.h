// core/env/disk.h on a real file system. The only place, with atomic_file, that calls fsync.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/disk/io_pool.h"
#include "core/env/disk.h"

namespace pstorage {

/// Hands a closure from a helper thread to the owner's loop.
using Post = std::function<void(std::function<void()>)>;

/// The tree under `root`, which must exist and be a directory. `pool` and the target of `post` must
/// outlive the disk and its files. Thread: the owner's loop.
Outcome<std::unique_ptr<Disk>> open_posix_disk(std::string const& root, Io_pool& pool, Post post);

}  // namespace pstorage
