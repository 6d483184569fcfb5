#include "blockdev/ct/containers.h"

#include <stdlib.h>

#include <charconv>
#include <filesystem>

#include "blockdev/ct/container_disk.h"
#include "blockdev/ct/tools.h"
#include "blockdev/volume/volume_cli.h"

namespace pstorage::ct {
namespace {

constexpr char const* private_root = "/volumes/private";
// Containers that are being made: what a crash leaves goes with the next one of that id.
constexpr char const* new_root = "/volumes/private.new";
constexpr char const* disk_name = "root.hdd";
constexpr std::size_t id_bytes_max = 100;

std::string directory_of(std::string const& id) { return std::string(private_root) + "/" + id; }
std::string new_directory_of(std::string const& id) { return std::string(new_root) + "/" + id; }

volume::Volume_name new_disk_of(std::string const& id) {
  return {"private.new/" + id + "/" + disk_name, {}};
}

/// A template as a directory: an archive is unpacked, and goes with the object.
class Template {
 public:
  static Outcome<std::unique_ptr<Template>> open(std::string const& path) {
    std::unique_ptr<Template> result(new Template);
    std::error_code error;
    if (path.empty()) return result;
    if (std::filesystem::is_directory(path, error)) {
      result->directory_ = path;
      return result;
    }
    if (!std::filesystem::is_regular_file(path, error)) {
      return failure(Errc::not_found,
                     "template '" + path + "': give a directory or a tar archive that exists");
    }
    std::string name = std::filesystem::temp_directory_path(error).string() + "/pstorage-ct-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr)
      return failure(std::error_code(errno, std::system_category()),
                     "cannot make a temporary directory");
    result->unpacked_ = result->directory_ = name;
    PS_CHECK(run({"tar", "--extract", "--file", path, "--directory", name, "--numeric-owner",
                  "--xattrs", "--same-permissions"}));
    return result;
  }
  ~Template() {
    std::error_code error;
    if (!unpacked_.empty()) std::filesystem::remove_all(unpacked_, error);
  }
  Template(Template const&) = delete;
  Template& operator=(Template const&) = delete;
  std::string const& directory() const { return directory_; }

 private:
  Template() = default;
  std::string directory_;
  std::string unpacked_;
};

}  // namespace

Outcome<std::string> check_id(std::string const& id) {
  bool const is_good = !id.empty() && id.size() <= id_bytes_max && id.front() != '.' &&
                       id.front() != '-' && id.find_first_of("/@ \t\n\\") == std::string::npos;
  if (!is_good)
    return failure(Errc::bad_request,
                   "bad container id '" + id + "': give a number or a name like 'web1'");
  return id;
}

volume::Volume_name Containers::disk_of(std::string const& id) {
  return {"private/" + id + "/" + disk_name, {}};
}

std::string Containers::now() const { return volume::utc_text(session_.wall_ms()); }

// ------------------------------------------------------------------ making, removing

Outcome<void> Containers::must_be_new(std::string const& id) {
  proto::Mds_request request;
  request.mutable_lookup()->set_path(directory_of(id));
  auto const found = session_.call(std::move(request));
  if (found.has_value())
    return failure(Errc::exists, "there is a container '" + id + "' already: choose another id");
  if (errc_of(found.error().code) != Errc::not_found) return found.error();
  return success();
}

Outcome<void> Containers::remove_directory(std::string const& path) {
  proto::Mds_request request;
  request.mutable_remove()->set_path(path);
  PS_CHECK(session_.call(std::move(request)));
  return success();
}

/// `made` gets its name: from now on it is a container.
Outcome<void> Containers::give_name(std::string const& made, std::string const& id) {
  proto::Mds_request parent;
  parent.mutable_create()->set_path(private_root);
  parent.mutable_create()->set_type(proto::TYPE_DIRECTORY);
  auto const there = session_.call(std::move(parent));
  if (there.has_error() && errc_of(there.error().code) != Errc::exists) return there.error();
  proto::Mds_request request;
  request.mutable_rename()->set_from(new_directory_of(made));
  request.mutable_rename()->set_to(directory_of(id));
  request.mutable_rename()->set_no_replace(true);
  PS_CHECK(session_.call(std::move(request)));
  return success();
}

/// What a crash, or a failure, has left of `id`.
Outcome<void> Containers::remove_unfinished(std::string const& id) {
  if (work_.look_up(new_disk_of(id)).has_error()) return success();
  PS_CHECK(work_.remove(new_disk_of(id), true));
  return remove_directory(new_directory_of(id));
}

Outcome<void> Containers::create(New_container const& container) {
  PS_CHECK(must_be_new(container.id));
  PS_TRY(auto const source, Template::open(container.template_path));
  PS_TRY(auto const image, Local_image::make(container.size_bytes, source->directory()));
  PS_CHECK(remove_unfinished(container.id));
  volume::New_volume disk;
  disk.name = new_disk_of(container.id);
  disk.size_bytes = container.size_bytes;
  PS_CHECK(work_.create(disk));
  auto const fill = [&]() -> Outcome<void> {
    PS_TRY(auto const target, Container_disk::open(session_, disk.name.name));
    PS_CHECK(target->fill_from(image->fd()));
    PS_CHECK(target->close());
    return give_name(container.id, container.id);
  };
  auto result = fill();
  if (result.has_error()) {
    auto const removed = remove_unfinished(container.id);
    (void)removed;  // else the next create of this id does it
  }
  return result;
}

Outcome<void> Containers::destroy(std::string const& id) {
  PS_CHECK(refuse_mounted(id, "destroy"));
  PS_CHECK(work_.remove(disk_of(id), true));
  return remove_directory(directory_of(id));
}

Outcome<void> Containers::clone(std::string const& id, std::string const& copy, bool linked) {
  PS_CHECK(must_be_new(copy));
  PS_TRY(auto const before, state(id));
  auto const whole = copy + "+copy";
  PS_CHECK(remove_unfinished(copy));
  PS_CHECK(remove_unfinished(whole));
  // The source gets a snapshot by it: in the middle of a change it would be one of a dirty disk.
  if (!before.mounted.empty()) PS_CHECK(run({"fsfreeze", "--freeze", before.mounted}));
  auto const cloned = work_.clone(disk_of(id), new_disk_of(copy), now());
  if (!before.mounted.empty()) PS_CHECK(run({"fsfreeze", "--unfreeze", before.mounted}));
  PS_CHECK(cloned);
  if (linked) return give_name(copy, copy);
  volume::New_volume disk;
  disk.name = new_disk_of(whole);
  disk.size_bytes = before.size_bytes;
  PS_CHECK(work_.create(disk));
  PS_TRY(auto const source, Container_disk::open(session_, new_disk_of(copy).name));
  PS_TRY(auto const target, Container_disk::open(session_, disk.name.name));
  PS_CHECK(target->fill_from(*source));
  PS_CHECK(target->close());
  PS_CHECK(source->close());
  PS_CHECK(remove_unfinished(copy));
  return give_name(whole, copy);
}

// ------------------------------------------------------------------ what there is

Outcome<Container_state> Containers::state(std::string const& id) {
  auto const looked = work_.look_up(disk_of(id));
  if (looked.has_error()) {
    if (errc_of(looked.error().code) == Errc::not_found)
      return failure(Errc::not_found, "there is no container '" + id + "'");
    return looked.error();
  }
  Container_state result;
  result.id = id;
  auto const& properties = looked.value().properties();
  if (auto const size = properties.find(volume::size_property); size != properties.end())
    std::from_chars(size->second.data(), size->second.data() + size->second.size(),
                    result.size_bytes);
  proto::Mds_request request;
  request.mutable_lookup()->set_path(disk_of(id).path() + "/" + volume::descriptor_file);
  PS_TRY(auto const descriptor, session_.call(std::move(request)));
  result.holder = descriptor.file().holder();
  auto const ending = "/.disks/" + disk_of(id).name;
  for (auto const& device : loop_devices()) {
    if (!device.backing_file.ends_with(ending)) continue;
    result.device = device.path;
    std::error_code error;
    result.is_dead = !std::filesystem::exists(device.backing_file, error);
    auto const mounts = find_mounts(read_text("/proc/self/mounts"), device.path);
    if (!mounts.empty()) result.mounted = mounts.front();
  }
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

// ------------------------------------------------------------------ mounting

Outcome<std::string> Containers::view_file(std::string const& id) {
  auto const mount = find_cluster_mount(read_text("/proc/self/mounts"), cluster_);
  if (mount.empty())
    return failure(Errc::refused, "the cluster is not mounted here: 'pstorage-mount -c " +
                                      cluster_ + " /mnt/" + cluster_ + "' first");
  return mount + "/.disks/" + disk_of(id).name;
}

Outcome<std::string> Containers::attach(std::string const& id, bool read_only) {
  PS_TRY(auto const file, view_file(id));
  std::vector<std::string> command = {"losetup", "--find", "--show", "--direct-io=on"};
  if (read_only) command.push_back("--read-only");
  command.push_back(file);
  std::string output;
  PS_TRY(int const code, run_status(command, output));
  if (code != 0) {
    PS_TRY(auto const now_state, state(id));
    if (!now_state.holder.empty())
      return failure(Errc::busy, "container '" + id + "' is in use by " + now_state.holder);
    return failure(Errc::io_error, "losetup failed: " + output.substr(0, output.find('\n')));
  }
  return output.substr(0, output.find('\n'));
}

class Containers::Attached {
 public:
  explicit Attached(std::string device) : device_(std::move(device)) {}
  ~Attached() {
    std::string output;
    auto const detached = run_status({"losetup", "--detach", device_}, output);
    (void)detached;  // status shows what is left
  }
  Attached(Attached const&) = delete;
  Attached& operator=(Attached const&) = delete;
  std::string const& device() const { return device_; }

 private:
  std::string const device_;
};

Outcome<void> Containers::mount(std::string const& id, std::string const& directory,
                                bool read_only) {
  PS_TRY(auto const before, state(id));
  if (!before.mounted.empty())
    return failure(Errc::busy, "container '" + id + "' is mounted on " + before.mounted);
  if (before.is_dead)
    return failure(Errc::refused, "container '" + id +
                                      "' has a dead device here: 'pstorage-ct "
                                      "status " +
                                      id + " --repair' first");
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  PS_TRY(auto const device, attach(id, read_only));
  auto const mounted =
      run({"mount", "-t", "ext4", "-o", read_only ? "ro" : "rw", device, directory});
  if (mounted.has_value()) return success();
  std::string output;
  PS_CHECK(run_status({"losetup", "--detach", device}, output));
  return mounted.error();
}

Outcome<void> Containers::unmount(std::string const& id, bool force) {
  PS_TRY(auto const before, state(id));
  if (before.device.empty())
    return failure(Errc::refused, "container '" + id + "' is not mounted here");
  if (before.is_dead) {
    if (force) {
      PS_CHECK(repair(id));
      return success();
    }
    return failure(Errc::refused, "the mount of container '" + id +
                                      "' is dead: 'pstorage-ct umount -f " + id + "'");
  }
  if (!before.mounted.empty()) PS_CHECK(run({"umount", before.mounted}));
  PS_CHECK(run({"losetup", "--detach", before.device}));
  return success();
}

Outcome<bool> Containers::repair(std::string const& id) {
  PS_TRY(auto const before, state(id));
  if (before.device.empty() || !before.is_dead) return false;
  for (auto const& place : find_mounts(read_text("/proc/self/mounts"), before.device))
    PS_CHECK(run({"umount", "--lazy", place}));
  PS_CHECK(run({"losetup", "--detach", before.device}));
  return true;
}

// ------------------------------------------------------------------ size, snapshots

Outcome<void> Containers::resize(std::string const& id, std::uint64_t size_bytes) {
  PS_TRY(auto const before, state(id));
  if (size_bytes == before.size_bytes) return success();
  bool const grows = size_bytes > before.size_bytes;
  if (!before.device.empty()) {
    if (!grows)
      return failure(Errc::refused,
                     "a mounted container cannot shrink: 'pstorage-ct umount " + id + "' first");
    PS_CHECK(work_.resize(disk_of(id), size_bytes, false));
    PS_CHECK(run({"losetup", "--set-capacity", before.device}));
    PS_CHECK(run({"resize2fs", before.device}));
    return success();
  }
  if (grows) PS_CHECK(work_.resize(disk_of(id), size_bytes, false));
  {
    PS_TRY(auto const device, attach(id, false));
    Attached const attached(device);
    std::string output;
    PS_TRY(int const checked, run_status({"e2fsck", "-f", "-p", device}, output));
    if (checked > 1)
      return failure(Errc::corrupt, "e2fsck finds faults it cannot repair: " + output);
    std::vector<std::string> command = {"resize2fs", device};
    if (!grows) command.push_back(std::to_string(size_bytes / 1024) + "K");
    PS_CHECK(run(command));
  }
  if (!grows) PS_CHECK(work_.resize(disk_of(id), size_bytes, true));
  return success();
}

Outcome<void> Containers::snapshot(std::string const& id, std::string const& name) {
  PS_TRY(auto const before, state(id));
  if (before.mounted.empty()) return work_.snapshot(disk_of(id), name, now());
  PS_CHECK(run({"fsfreeze", "--freeze", before.mounted}));
  auto const taken = work_.snapshot(disk_of(id), name, now());
  PS_CHECK(run({"fsfreeze", "--unfreeze", before.mounted}));
  return taken;
}

Outcome<ploop::Descriptor> Containers::snapshots(std::string const& id) {
  return work_.descriptor(disk_of(id));
}

Outcome<void> Containers::switch_to(std::string const& id, std::string const& snapshot) {
  PS_CHECK(refuse_mounted(id, "switch"));
  return work_.roll_back({disk_of(id).name, snapshot});
}

Outcome<void> Containers::remove_snapshot(std::string const& id, std::string const& snapshot) {
  PS_CHECK(refuse_mounted(id, "change the snapshots of"));
  return work_.remove_snapshot({disk_of(id).name, snapshot}, {});
}

Outcome<std::pair<std::uint64_t, std::uint64_t>> Containers::compact(std::string const& id) {
  PS_TRY(auto const now_state, state(id));
  if (now_state.mounted.empty())
    return failure(
        Errc::refused,
        "container '" + id + "' is not mounted here: 'pstorage-ct mount " + id + "' first");
  PS_TRY(auto const before, work_.usage(disk_of(id)));
  PS_CHECK(run({"fstrim", now_state.mounted}));
  PS_CHECK(run({"sync", "--file-system", now_state.mounted}));
  PS_TRY(auto const after, work_.usage(disk_of(id)));
  return std::pair(before.allocated_bytes, after.allocated_bytes);
}

}  // namespace pstorage::ct
