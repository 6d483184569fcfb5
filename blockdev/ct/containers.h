// Containers of the cluster: /volumes/private/CTID/root.hdd is the disk of one. What is done to it
// at rest goes through the volume; in use, through a device of this host (devices.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "blockdev/ct/devices.h"
#include "blockdev/volume/volume_work.h"

namespace pstorage::ct {

/// A container's id: a name without slashes that is no option and not hidden. Errors: bad_request.
Outcome<std::string> check_id(std::string const& id);

struct New_container {
  std::string id;
  std::uint64_t size_bytes = 0;
  std::string template_path;  // a directory or a tar archive; empty: an empty file system
};

/// A snapshot that is mounted here.
struct Mounted_snapshot {
  std::string name;
  std::string device;
  std::string mounted;  // empty: nowhere
  bool is_dead = false;
};

struct Container_state {
  std::string id;
  std::uint64_t size_bytes = 0;
  std::string device;                  // of this host; empty: none
  std::string mounted;                 // where; empty: nowhere here
  bool is_dead = false;                // as of Device
  std::string holder;                  // who has it open; empty: nobody
  std::uint64_t saved_size_bytes = 0;  // what a mount grows it to; 0: nothing was saved
  std::vector<Mounted_snapshot> snapshots;
};

/// Where and how something is mounted.
struct Mount_options {
  std::string directory;
  bool is_read_only = false;
  std::optional<Way> way;  // nothing: what this host has
};

/// What became of dead devices.
struct Repaired {
  std::size_t revived = 0;  // the volume is there: they are kept connected again
  std::size_t removed = 0;  // with their mounts
};

/// The directory of all containers.
inline constexpr char const* private_root = "/volumes/private";
/// A property of a container's disk: what "set --save" has noted, bytes.
inline constexpr char const* saved_size_property = "ct.diskspace";

/// Thread: one. Every error is one line that says what to do.
class Containers {
 public:
  Containers(volume::Tool_session& session, std::string cluster)
      : session_(session), work_(session), devices_(std::move(cluster)) {}

  Outcome<void> create(New_container const& container);
  Outcome<void> destroy(std::string const& id);
  /// An existing volume becomes a container, and a container a volume again. Nothing is copied.
  Outcome<void> register_volume(volume::Volume_name const& name, std::string const& id);
  Outcome<void> unregister(std::string const& id, volume::Volume_name const& name);
  Outcome<Container_state> state(std::string const& id);
  Outcome<std::vector<Container_state>> list();

  /// Grows to its saved size what is smaller. Errors: busy, naming the host that has it.
  Outcome<void> mount(std::string const& id, Mount_options const& options);
  /// `force`: also what a dead mount has left, and what nobody serves now.
  Outcome<void> unmount(std::string const& id, bool force);
  /// Dead devices work again, or go away with their mounts.
  Outcome<Repaired> repair(std::string const& id);

  /// Grows a mounted or an unmounted one; shrinks the file system of an unmounted one, whose disk
  /// stays as large as it was.
  Outcome<void> resize(std::string const& id, std::uint64_t size_bytes,
                       std::optional<Way> way = std::nullopt);
  /// The size that every later mount brings it to, also after a switch to a smaller snapshot.
  Outcome<void> save_size(std::string const& id, std::uint64_t size_bytes);
  /// Freezes the file system while it is taken, when it is mounted here.
  Outcome<void> snapshot(std::string const& id, std::string const& name);
  Outcome<ploop::Descriptor> snapshots(std::string const& id);
  Outcome<void> switch_to(std::string const& id, std::string const& snapshot);
  Outcome<void> remove_snapshot(std::string const& id, std::string const& snapshot);
  /// Read-only. Errors: exists, when it is mounted here.
  Outcome<void> mount_snapshot(std::string const& id, std::string const& snapshot,
                               Mount_options const& options);
  Outcome<void> unmount_snapshot(std::string const& id, std::string const& snapshot);
  /// Gives back what the file system does not use; bytes of one replica before and after.
  Outcome<std::pair<std::uint64_t, std::uint64_t>> compact(std::string const& id);
  /// `linked`: shares the frozen part. Else everything is copied.
  Outcome<void> clone(std::string const& id, std::string const& copy, bool linked);

 private:
  /// A device for as long as the object lives.
  class Attached;

  static volume::Volume_name disk_of(std::string const& id);
  Outcome<std::string> attach(std::string const& id, std::string const& snapshot, bool read_only,
                              std::optional<Way> wish);
  Outcome<void> mount_device(std::string const& device, std::string const& directory,
                             std::string const& options);
  Outcome<void> detach(std::string const& device, std::string const& mounted);
  Outcome<void> grow_to_saved(std::string const& device, std::uint64_t saved_bytes);
  Outcome<std::string> holder_of(std::string const& id);
  Outcome<void> await_release(std::string const& id, std::string const& holder);
  Outcome<void> resize_mounted(Container_state const& before, std::uint64_t size_bytes);
  void add_devices(Container_state& result);
  Outcome<void> refuse_mounted(std::string const& id, std::string const& what);
  Outcome<void> refuse_mounted_snapshot(std::string const& id, std::string const& snapshot);
  Outcome<void> give_name(std::string const& made, std::string const& id);
  Outcome<void> remove_unfinished(std::string const& id);
  Outcome<void> remove_directory(std::string const& path);
  Outcome<void> must_be_new(std::string const& id);
  std::string now() const;

  volume::Tool_session& session_;
  volume::Volume_work work_;
  Devices const devices_;
};

}  // namespace pstorage::ct
