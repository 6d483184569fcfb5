// Containers: what there is of them on this host, and where it is mounted.
#include <charconv>
#include <filesystem>
#include <thread>

#include "blockdev/ct/containers.h"
#include "blockdev/ct/tools.h"

namespace pstorage::ct {
namespace {

constexpr Duration release_patience = std::chrono::seconds(5);
constexpr Duration release_pause = std::chrono::milliseconds(20);

std::uint64_t number_in(proto::File const& file, char const* property) {
  std::uint64_t value = 0;
  auto const found = file.properties().find(property);
  if (found == file.properties().end()) return 0;
  auto const& text = found->second;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

// ------------------------------------------------------------------ what there is

Outcome<std::string> Containers::holder_of(std::string const& id) {
  proto::Mds_request request;
  request.mutable_lookup()->set_path(disk_of(id).path() + "/" + volume::descriptor_file);
  PS_TRY(auto const descriptor, session_.call(std::move(request)));
  return descriptor.file().holder();
}

/// The disk view closes a volume a little after its last user has gone: then the next command finds
/// it free. `holder`: who had it; somebody else may have it already.
Outcome<void> Containers::await_release(std::string const& id, std::string const& holder) {
  for (auto left = release_patience; left > Duration{0}; left -= release_pause) {
    PS_TRY(auto const now_holder, holder_of(id));
    if (now_holder.empty() || now_holder != holder) break;
    std::this_thread::sleep_for(release_pause);
  }
  return success();
}

/// What this host has of it, and where that is mounted.
void Containers::add_devices(Container_state& result) {
  for (auto const& device : devices_.find(disk_of(result.id).name)) {
    auto const mounts = find_mounts(read_text("/proc/self/mounts"), device.path);
    auto const mounted = mounts.empty() ? std::string() : mounts.front();
    if (!device.snapshot.empty()) {
      result.snapshots.push_back({device.snapshot, device.path, mounted, device.is_dead});
      continue;
    }
    result.device = device.path;
    result.is_dead = device.is_dead;
    result.mounted = mounted;
  }
}

Outcome<Container_state> Containers::state(std::string const& id) {
  auto const looked = work_.look_up(disk_of(id));
  if (looked.has_error()) {
    if (errc_of(looked.error().code) == Errc::not_found)
      return failure(Errc::not_found, "there is no container '" + id + "'");
    return looked.error();
  }
  Container_state result;
  result.id = id;
  result.size_bytes = number_in(looked.value(), volume::size_property);
  result.saved_size_bytes = number_in(looked.value(), saved_size_property);
  PS_TRY(result.holder, holder_of(id));
  add_devices(result);
  return result;
}

Outcome<std::vector<Container_state>> Containers::list() {
  proto::Mds_request request;
  request.mutable_list_directory()->set_path(private_root);
  auto const answer = session_.call(std::move(request));
  std::vector<Container_state> states;
  if (answer.has_error()) {
    if (errc_of(answer.error().code) == Errc::not_found) return states;
    return answer.error();
  }
  for (auto const& file : answer.value().files().files()) {
    if (file.name().starts_with('.')) continue;
    auto one = state(file.name());
    if (one.has_value()) states.push_back(std::move(one).value());
  }
  return states;
}

Outcome<void> Containers::refuse_mounted(std::string const& id, std::string const& what) {
  PS_TRY(auto const now_state, state(id));
  if (now_state.device.empty()) return success();
  return failure(Errc::busy, "container '" + id + "' is mounted here: 'pstorage-ct umount " + id +
                                 "' before you " + what + " it");
}

Outcome<void> Containers::refuse_mounted_snapshot(std::string const& id,
                                                  std::string const& snapshot) {
  PS_TRY(auto const now_state, state(id));
  for (auto const& one : now_state.snapshots) {
    if (!snapshot.empty() && one.name != snapshot) continue;
    return failure(Errc::busy, "snapshot '" + one.name + "' of container '" + id +
                                   "' is mounted here: 'pstorage-ct snapshot-umount " + id + " " +
                                   one.name + "' first");
  }
  return success();
}

// ------------------------------------------------------------------ mounting

Outcome<std::string> Containers::attach(std::string const& id, std::string const& snapshot,
                                        bool read_only, std::optional<Way> wish) {
  PS_TRY(auto const way, devices_.choose(wish));
  auto name = disk_of(id).name;
  if (!snapshot.empty()) name += "@" + snapshot;
  PS_TRY(auto const holder, holder_of(id));  // before this host's server may have it
  auto const device = devices_.attach(way, name, read_only);
  if (device.has_value() || holder.empty() || !snapshot.empty()) return device;
  return failure(Errc::busy, "container '" + id + "' is in use by " + holder);
}

Outcome<void> Containers::mount(std::string const& id, Mount_options const& options) {
  PS_TRY(auto const before, state(id));
  if (!before.mounted.empty())
    return failure(Errc::busy, "container '" + id + "' is mounted on " + before.mounted);
  if (before.is_dead)
    return failure(Errc::refused, "container '" + id +
                                      "' has a dead device here: 'pstorage-ct status " + id +
                                      " --repair' first");
  if (!before.device.empty())
    return failure(Errc::refused, "container '" + id + "' has " + before.device +
                                      " here, not mounted: 'pstorage-ct umount " + id + "' first");
  bool const read_only = options.is_read_only;
  if (!read_only && before.size_bytes < before.saved_size_bytes)
    PS_CHECK(resize(id, before.saved_size_bytes, options.way));
  PS_TRY(auto const device, attach(id, {}, read_only, options.way));
  auto const grown = read_only ? success() : grow_to_saved(device, before.saved_size_bytes);
  if (grown.has_error()) {
    PS_CHECK(detach(device, {}));
    return grown.error();
  }
  return mount_device(device, options.directory, read_only ? "ro" : "rw");
}

/// The file system of a snapshot from before the disk grew.
Outcome<void> Containers::grow_to_saved(std::string const& device, std::uint64_t saved_bytes) {
  if (saved_bytes == 0) return success();
  PS_TRY(auto const bytes, file_system_bytes(device));
  return bytes < saved_bytes ? resize_file_system(device, saved_bytes) : success();
}

/// The device goes when it cannot be mounted.
Outcome<void> Containers::mount_device(std::string const& device, std::string const& directory,
                                       std::string const& options) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  auto const mounted = run({"mount", "-t", "ext4", "-o", options, device, directory});
  if (mounted.has_value()) return success();
  PS_CHECK(detach(device, {}));
  return mounted.error();
}

Outcome<void> Containers::detach(std::string const& device, std::string const& mounted) {
  if (!mounted.empty()) PS_CHECK(run({"umount", mounted}));
  return devices_.detach(device);
}

Outcome<void> Containers::unmount(std::string const& id, bool force) {
  PS_TRY(auto const before, state(id));
  if (before.device.empty())
    return failure(Errc::refused, "container '" + id + "' is not mounted here");
  if (before.is_dead && !force)
    return failure(Errc::refused, "the mount of container '" + id +
                                      "' is dead: 'pstorage-ct umount -f " + id + "'");
  // What can still be written back is: a dead one may have lost no more than its keeper.
  bool const works =
      before.is_dead ? devices_.revive(before.device) : !force || devices_.is_served(before.device);
  if (!works) return devices_.remove(before.device);
  PS_CHECK(detach(before.device, before.mounted));
  return await_release(id, before.holder);
}

Outcome<Repaired> Containers::repair(std::string const& id) {
  PS_TRY(auto const before, state(id));
  std::vector<std::string> dead;
  if (before.is_dead) dead.push_back(before.device);
  for (auto const& one : before.snapshots)
    if (one.is_dead) dead.push_back(one.device);
  Repaired result;
  for (auto const& device : dead) {
    if (devices_.revive(device)) {
      ++result.revived;
      continue;
    }
    PS_CHECK(devices_.remove(device));
    ++result.removed;
  }
  return result;
}

}  // namespace pstorage::ct
