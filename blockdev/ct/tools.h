// Programs of the system that pstorage-ct runs, and what the kernel says of mounts and loop
// devices.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"

namespace pstorage::ct {

/// Runs a program and waits for it; what it printed (both streams). Errors: its last line.
Outcome<std::string> run(std::vector<std::string> const& command);
/// As run(); the exit status instead of an error, unless it could not be started.
Outcome<int> run_status(std::vector<std::string> const& command, std::string& output);

/// Of the ext4 file system on a device that is not mounted. Errors: corrupt, when there is none.
Outcome<std::uint64_t> file_system_bytes(std::string const& device);
/// Checks it first; a multiple of its block size. Errors: corrupt, what e2fsck cannot repair.
Outcome<void> resize_file_system(std::string const& device, std::uint64_t size_bytes);

/// Where the cluster is mounted by pstorage-mount, empty when it is not. `mounts`:
/// /proc/self/mounts.
std::string find_cluster_mount(std::string const& mounts, std::string const& cluster);
/// Where `device` is mounted, first mount first.
std::vector<std::string> find_mounts(std::string const& mounts, std::string const& device);

struct Loop_device {
  std::string path;  // "/dev/loop0"
  std::string backing_file;
};
/// All loop devices that have a file.
std::vector<Loop_device> loop_devices();

std::string read_text(std::string const& path);

}  // namespace pstorage::ct
