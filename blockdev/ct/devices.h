// The devices of this host that show a container's disk: loop devices on pstorage-mount's disk
// view, and volumes that are attached to the kernel's NBD client.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "blockdev/ct/attach_way.h"
#include "blockdev/volume/attachment.h"

namespace pstorage::ct {

struct Device {
  std::string path;      // "/dev/loop0", "/dev/nbd0"
  std::string snapshot;  // that it shows; empty: the disk itself
  bool is_dead = false;  // it has lost its volume, or the process that keeps it connected
};

/// The snapshot of `disk` ("private/101/root.hdd") that the file of a loop device is, "" for the
/// disk itself; nothing: neither.
std::optional<std::string> snapshot_in_view(std::string const& backing_file,
                                            std::string const& disk);
/// The same of what is attached, as VOLUME[@SNAPSHOT].
std::optional<std::string> snapshot_attached(std::string const& volume, std::string const& disk);

/// Those of one cluster. Thread: one. What is found is what the kernel says; nothing is noted.
class Devices {
 public:
  explicit Devices(std::string cluster) : cluster_(std::move(cluster)) {}

  std::vector<Device> find(std::string const& disk) const;
  /// As choose_way(), for this host.
  Outcome<Way> choose(std::optional<Way> wish) const;
  /// Makes a device of `volume`, VOLUME[@SNAPSHOT]. Returns its path. Errors: what the program says
  /// that does it.
  Outcome<std::string> attach(Way way, std::string const& volume, bool read_only) const;
  /// Takes an unmounted one away. Errors: busy.
  Outcome<void> detach(std::string const& path) const;
  /// The volume has grown to `size_bytes`: so does the device.
  Outcome<void> grow(std::string const& path, std::uint64_t size_bytes) const;
  /// Does who serves it answer? A loop device: does it have its file?
  bool is_served(std::string const& path) const;
  /// Has a dead one kept connected again; false: its volume is lost.
  bool revive(std::string const& path) const;
  /// Takes it away, whoever uses it, with its mounts; what was not flushed is lost.
  Outcome<void> remove(std::string const& path) const;

 private:
  Outcome<std::string> attach_to_kernel(std::string const& volume, std::string const& server,
                                        bool read_only) const;

  std::string const cluster_;
};

}  // namespace pstorage::ct
