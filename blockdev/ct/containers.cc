#include "blockdev/ct/containers.h"

#include <stdlib.h>

#include <filesystem>

#include "blockdev/ct/container_disk.h"
#include "blockdev/ct/tools.h"
#include "blockdev/volume/volume_cli.h"

namespace pstorage::ct {
namespace {

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
  auto const found = work_.look_up(disk_of(id));
  if (found.has_value())
    return failure(Errc::exists, "there is a container '" + id + "' already: choose another id");
  if (errc_of(found.error().code) != Errc::not_found) return found.error();
  // Without a disk: a register or unregister that died has left it.
  auto const removed = remove_directory(directory_of(id));
  bool const is_gone = removed.has_value() || errc_of(removed.error().code) == Errc::not_found;
  return is_gone ? success() : removed;
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
  PS_CHECK(refuse_mounted_snapshot(id, {}));
  PS_CHECK(work_.remove(disk_of(id), true));
  return remove_directory(directory_of(id));
}

Outcome<void> Containers::register_volume(volume::Volume_name const& name, std::string const& id) {
  PS_CHECK(must_be_new(id));
  PS_TRY(auto const file, work_.look_up(name));
  if (!file.properties().contains(volume::format_property))
    return failure(Errc::refused, "'" + name.name +
                                      "' is not a ploop volume: 'pstorage volume import' makes one "
                                      "of an image");
  return work_.rename(name, disk_of(id));
}

Outcome<void> Containers::unregister(std::string const& id, volume::Volume_name const& name) {
  PS_TRY(auto const found, state(id));
  PS_CHECK(refuse_mounted(found.id, "unregister"));
  PS_CHECK(refuse_mounted_snapshot(id, {}));
  PS_CHECK(work_.rename(disk_of(id), name));
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

// ------------------------------------------------------------------ size, snapshots

class Containers::Attached {
 public:
  Attached(Devices const& devices, std::string device)
      : devices_(devices), device_(std::move(device)) {}
  ~Attached() {
    auto const detached = devices_.detach(device_);
    (void)detached;  // status shows what is left
  }
  Attached(Attached const&) = delete;
  Attached& operator=(Attached const&) = delete;
  std::string const& device() const { return device_; }

 private:
  Devices const& devices_;
  std::string const device_;
};

Outcome<void> Containers::resize(std::string const& id, std::uint64_t size_bytes,
                                 std::optional<Way> way) {
  PS_TRY(auto const before, state(id));
  if (!before.device.empty()) return resize_mounted(before, size_bytes);
  if (size_bytes > before.size_bytes) PS_CHECK(work_.resize(disk_of(id), size_bytes, false));
  std::string holder;
  {
    PS_TRY(auto const device, attach(id, {}, false, way));
    Attached const attached(devices_, device);
    PS_TRY(holder, holder_of(id));
    PS_CHECK(resize_file_system(device, size_bytes));
    // An image does not shrink: what the file system has left takes no space.
    if (size_bytes < before.size_bytes)
      PS_CHECK(run({"blkdiscard", "--offset", std::to_string(size_bytes), device}));
  }
  return await_release(id, holder);
}

Outcome<void> Containers::resize_mounted(Container_state const& before, std::uint64_t size_bytes) {
  PS_TRY(auto const used_bytes, file_system_bytes(before.device));
  if (size_bytes < used_bytes)
    return failure(Errc::refused, "a mounted container cannot shrink: 'pstorage-ct umount " +
                                      before.id + "' first");
  if (size_bytes > before.size_bytes) {
    PS_CHECK(work_.resize(disk_of(before.id), size_bytes, false));
    PS_CHECK(devices_.grow(before.device, size_bytes));
  }
  PS_CHECK(run({"resize2fs", before.device, std::to_string(size_bytes / 1024) + "K"}));
  return success();
}

Outcome<void> Containers::save_size(std::string const& id, std::uint64_t size_bytes) {
  proto::Mds_request request;
  auto& set = *request.mutable_set_attributes();
  set.set_path(disk_of(id).path());
  (*set.mutable_properties())[saved_size_property] = std::to_string(size_bytes);
  PS_CHECK(session_.call(std::move(request)));
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
  PS_CHECK(refuse_mounted_snapshot(id, {}));
  return work_.roll_back({disk_of(id).name, snapshot});
}

Outcome<void> Containers::remove_snapshot(std::string const& id, std::string const& snapshot) {
  PS_CHECK(refuse_mounted(id, "change the snapshots of"));
  PS_CHECK(refuse_mounted_snapshot(id, {}));
  return work_.remove_snapshot({disk_of(id).name, snapshot}, {});
}

Outcome<void> Containers::mount_snapshot(std::string const& id, std::string const& snapshot,
                                         Mount_options const& options) {
  PS_TRY(auto const before, state(id));
  PS_CHECK(refuse_mounted_snapshot(id, snapshot));
  PS_TRY(auto const device, attach(id, snapshot, true, options.way));
  // Taken while it was mounted on another host it may have a journal to replay: nothing is written.
  return mount_device(device, options.directory, "ro,noload");
}

Outcome<void> Containers::unmount_snapshot(std::string const& id, std::string const& snapshot) {
  PS_TRY(auto const before, state(id));
  for (auto const& one : before.snapshots)
    if (one.name == snapshot) return detach(one.device, one.mounted);
  return failure(Errc::refused,
                 "snapshot '" + snapshot + "' of container '" + id + "' is not mounted here");
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
