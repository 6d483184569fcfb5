#include "blockdev/volume/volume_work.h"

#include <algorithm>

#include "blockdev/ploop/create.h"
#include "blockdev/volume/disk_files.h"
#include "blockdev/volume/transfer_note.h"

namespace pstorage::volume {
namespace {

std::uint64_t mapped_bytes(proto::File const& file) {
  return file.allocated_chunks() * file.attributes().chunk_size();
}

Failure taken(Failure const& why, Volume_name const& name) {
  auto const code = errc_of(why.code);
  if (code == Errc::exists || code == Errc::not_empty || code == Errc::not_directory ||
      code == Errc::is_directory)
    return failure(Errc::exists, "the volume '" + name.name + "' exists already");
  return why;
}

}  // namespace

struct Volume_work::Held {
  explicit Held(Tool_session& session, std::string const& path) : directory(session, path) {}
  proto::Lease_guard guard(Tool_session& session) const {
    return raw ? session.cluster().guard_of(*raw) : directory.guard();
  }
  std::shared_ptr<client::Volume> raw;
  Cluster_directory directory;  // of a disk: locked
};

Outcome<std::unique_ptr<Volume_work::Held>> Volume_work::hold(Volume_name const& name) {
  PS_TRY(auto const file, look_up(name));
  auto held = std::make_unique<Held>(session_, name.path());
  if (file.type() == proto::TYPE_FILE) {
    PS_TRY(held->raw, session_.open(name.path()));
    return held;
  }
  auto const locked = held->directory.lock(Duration{0});
  if (!locked.has_value() && errc_of(locked.error().code) == Errc::not_found)
    return failure(Errc::is_directory, "'" + name.name + "' is a directory of volumes");
  PS_CHECK(locked);
  return held;
}

Outcome<proto::File> Volume_work::look_up(Volume_name const& name) {
  proto::Mds_request request;
  request.mutable_lookup()->set_path(name.path());
  PS_TRY(auto const reply, session_.call(std::move(request)));
  return reply.file();
}

Outcome<void> Volume_work::make_directory(std::string const& path,
                                          proto::Attributes const& attributes, bool may_exist) {
  proto::Mds_request request;
  auto& create = *request.mutable_create();
  create.set_path(path);
  create.set_type(proto::TYPE_DIRECTORY);
  create.set_parents(true);
  *create.mutable_attributes() = attributes;
  auto const made = session_.call(std::move(request));
  if (made.has_value() || (may_exist && errc_of(made.error().code) == Errc::exists))
    return success();
  return made.error();
}

Outcome<void> Volume_work::remove_path(std::string const& path) {
  proto::Mds_request request;
  request.mutable_remove()->set_path(path);
  auto const removed = session_.call(std::move(request));
  if (removed.has_value() || errc_of(removed.error().code) == Errc::not_found) return success();
  return removed.error();
}

Outcome<void> Volume_work::remove_tree(std::string const& path) {
  proto::Mds_request request;
  request.mutable_list_directory()->set_path(path);
  auto const listed = session_.call(std::move(request));
  if (listed.has_value())
    for (auto const& file : listed.value().files().files())
      PS_CHECK(remove_tree(path + "/" + file.name()));
  else if (errc_of(listed.error().code) == Errc::not_found)
    return success();
  else if (errc_of(listed.error().code) != Errc::not_directory)
    return listed.error();
  return remove_path(path);
}

Outcome<void> Volume_work::move(std::string const& from, std::string const& to,
                                proto::Lease_guard const* guard) {
  proto::Mds_request request;
  if (guard != nullptr) *request.mutable_guard() = *guard;
  request.mutable_rename()->set_from(from);
  request.mutable_rename()->set_to(to);
  request.mutable_rename()->set_no_replace(true);
  PS_CHECK(session_.call(std::move(request)));
  return success();
}

Outcome<void> Volume_work::note_size(Volume_name const& name, std::uint64_t size_bytes,
                                     proto::Lease_guard const* guard) {
  proto::Mds_request request;
  if (guard != nullptr) *request.mutable_guard() = *guard;
  auto& set = *request.mutable_set_attributes();
  set.set_path(name.path());
  (*set.mutable_properties())[size_property] = std::to_string(size_bytes);
  PS_CHECK(session_.call(std::move(request)));
  return success();
}

Outcome<void> Volume_work::note_import(Volume_name const& name, std::string const& note) {
  proto::Mds_request request;
  auto& set = *request.mutable_set_attributes();
  set.set_path(name.path());
  (*set.mutable_properties())[import_property] = note;
  PS_CHECK(session_.call(std::move(request)));
  return success();
}

Outcome<void> Volume_work::build(
    Volume_name const& target, proto::Attributes const& attributes,
    std::function<Outcome<std::uint64_t>(Cluster_directory&)> const& fill) {
  auto const parent = split_last(target.path()).first;
  PS_CHECK(make_directory(parent, {}, true));
  auto const unfinished = parent + "/" + unfinished_prefix + ploop::new_guid(session_.random());
  PS_CHECK(make_directory(unfinished, attributes, false));
  Cluster_directory directory(session_, unfinished);
  auto const finish = [&]() -> Outcome<void> {
    PS_TRY(auto const size, fill(directory));
    proto::Mds_request request;
    auto& set = *request.mutable_set_attributes();
    set.set_path(unfinished);
    (*set.mutable_properties())[format_property] = "ploop";
    (*set.mutable_properties())[size_property] = std::to_string(size);
    PS_CHECK(session_.call(std::move(request)));
    auto const guard = directory.guard();
    if (auto moved = move(unfinished, target.path(), &guard); !moved.has_value())
      return taken(moved.error(), target);
    return success();
  };
  auto finished = finish();
  auto closed = directory.close();
  if (finished.has_value()) return closed;
  auto const swept = remove_tree(unfinished);
  (void)swept;  // what stays is no volume; the reason is in the first failure
  return finished;
}

Outcome<void> Volume_work::create(New_volume const& volume) {
  if (auto const found = look_up(volume.name); found.has_value())
    return failure(Errc::exists, "the volume '" + volume.name.name + "' exists already");
  if (volume.is_raw) {
    proto::Mds_request request;
    auto& create = *request.mutable_create();
    create.set_path(volume.name.path());
    create.set_size(volume.size_bytes);
    create.set_parents(true);
    *create.mutable_attributes() = volume.attributes;
    auto const made = session_.call(std::move(request));
    if (!made.has_value()) return taken(made.error(), volume.name);
    return success();
  }
  ploop::Disk_format format;
  format.cluster_bytes = volume.cluster_bytes;
  // The size and the cluster are checked before anything is there.
  PS_CHECK(ploop::make_header(format.version, format.cluster_bytes, volume.size_bytes));
  return build(
      volume.name, volume.attributes, [&](Cluster_directory& directory) -> Outcome<std::uint64_t> {
        PS_TRY(auto const disk, ploop::Virtual_disk::create(directory, descriptor_file, base_file,
                                                            volume.size_bytes, format));
        return disk.descriptor().size_sectors() * ploop::sector_bytes;
      });
}

Outcome<void> Volume_work::list_below(std::string const& directory,
                                      std::vector<Listed_volume>& found) {
  auto const root = std::string(volumes_root);
  proto::Mds_request request;
  request.mutable_list_directory()->set_path(directory.empty() ? root : root + "/" + directory);
  auto const answer = session_.call(std::move(request));
  if (!answer.has_value()) {
    // Before the first volume there is no directory; another may be removed meanwhile.
    if (errc_of(answer.error().code) == Errc::not_found) return success();
    return answer.error();
  }
  for (auto const& file : answer.value().files().files()) {
    if (file.name().starts_with('.')) continue;
    Listed_volume one;
    one.name = directory.empty() ? file.name() : directory + "/" + file.name();
    one.file = file;
    one.is_raw = file.type() == proto::TYPE_FILE;
    one.size_bytes = one.is_raw ? file.size() : noted_size(file);
    one.mapped_bytes = mapped_bytes(file);
    if (!one.is_raw && !file.properties().contains(format_property)) {
      Cluster_directory inside(session_, root + "/" + one.name);
      if (!inside.exists(descriptor_file)) {
        PS_CHECK(list_below(one.name, found));
        continue;
      }
      PS_TRY(auto const text, inside.read_text(descriptor_file, ploop::descriptor_bytes_max));
      PS_TRY(auto const descriptor, ploop::Descriptor::parse(text));
      one.size_bytes = descriptor.size_sectors() * ploop::sector_bytes;
    }
    if (!one.is_raw) {
      Cluster_directory inside(session_, root + "/" + one.name);
      PS_TRY(auto const parts, inside.list());
      for (auto const& part : parts) one.mapped_bytes += mapped_bytes(part);
    }
    found.push_back(std::move(one));
  }
  return success();
}

Outcome<std::vector<Listed_volume>> Volume_work::list() {
  std::vector<Listed_volume> found;
  PS_CHECK(list_below("", found));
  std::sort(found.begin(), found.end(),
            [](auto const& a, auto const& b) { return a.name < b.name; });
  return found;
}

Outcome<void> Volume_work::rename(Volume_name const& from, Volume_name const& to) {
  PS_TRY(auto const held, hold(from));
  PS_CHECK(make_directory(split_last(to.path()).first, {}, true));
  auto const guard = held->guard(session_);
  if (auto moved = move(from.path(), to.path(), &guard); !moved.has_value())
    return taken(moved.error(), to);
  if (held->raw) return session_.close(std::move(held->raw));
  return held->directory.close();
}

namespace {

/// Bytes of blocks that hold something.
Outcome<std::uint64_t> stored_bytes(Tool_session& session, client::Volume& file) {
  std::uint64_t stored = 0;
  for (std::uint64_t at = 0; at < file.size_bytes();) {
    using Extents = Result<std::vector<client::Extent>>;
    auto const runs =
        ploop::wait_for_answer<Extents>(session.turn(), [&](client::Extents_done done) {
          file.extents(at, file.size_bytes() - at, 1u << 20, std::move(done));
        });
    if (!runs)
      return failure(runs.error(), "cannot read " + file.path() + ": " + runs.error().message());
    for (auto const& run : runs.value()) {
      stored += run.hole ? 0 : run.length;
      at += run.length;
    }
  }
  return stored;
}

}  // namespace

Outcome<Volume_usage> Volume_work::usage(Volume_name const& name) {
  PS_TRY(auto const file, look_up(name));
  Volume_usage usage;
  auto const add = [&](std::string const& path, bool is_shared) -> Outcome<void> {
    PS_TRY(auto const volume, session_.open_reader(path));
    PS_TRY(auto const stored, stored_bytes(session_, *volume));
    usage.allocated_bytes += stored;
    if (!is_shared) usage.exclusive_bytes += stored;
    return success();
  };
  if (file.type() == proto::TYPE_FILE) {
    usage.virtual_bytes = file.size();
    PS_CHECK(add(name.path(), file.links() > 1));
    return usage;
  }
  PS_TRY(auto const found, descriptor(name));
  usage.virtual_bytes = found.size_sectors() * ploop::sector_bytes;
  Cluster_directory directory(session_, name.path());
  PS_TRY(auto const files, directory.list());
  for (auto const& one : files)
    for (auto const& delta : found.deltas())
      if (delta.file == one.name()) PS_CHECK(add(directory.path_of(one.name()), one.links() > 1));
  return usage;
}

Outcome<void> Volume_work::set_limits(Volume_name const& name, Limits const& limits) {
  PS_TRY(auto const file, look_up(name));
  bool const is_raw = file.type() == proto::TYPE_FILE;
  if (!is_raw) PS_CHECK(descriptor(name));  // is it a volume?
  proto::Mds_request set;
  set.mutable_set_attributes()->set_path(name.path());
  for (auto const& [key, value] : properties_of(limits))
    (*set.mutable_set_attributes()->mutable_properties())[key] = value;
  PS_CHECK(session_.call(std::move(set)));
  proto::Holder_request request;
  request.mutable_reload_limits();
  auto const told = session_.ask_holder(is_raw ? name.path() : name.path() + "/" + descriptor_file,
                                        std::move(request));
  // Nobody has it open, or a tool that is about to end.
  if (!told.has_value() && errc_of(told.error().code) != Errc::not_found &&
      errc_of(told.error().code) != Errc::busy)
    return told.error();
  return success();
}

Outcome<void> Volume_work::allow_migration(Volume_name const& name, Duration how_long) {
  PS_TRY(auto const file, look_up(name));
  if (file.type() != proto::TYPE_FILE) PS_CHECK(descriptor(name));  // is it a volume?
  auto const ms = std::chrono::duration_cast<std::chrono::milliseconds>(how_long).count();
  proto::Mds_request set;
  set.mutable_set_attributes()->set_path(name.path());
  (*set.mutable_set_attributes()->mutable_properties())[migration_property] = migration_text(
      ploop::new_guid(session_.random()), session_.wall_ms() + static_cast<std::uint64_t>(ms));
  PS_CHECK(session_.call(std::move(set)));
  return success();
}

Outcome<std::vector<Volume_work::Checked>> Volume_work::check(Volume_name const& name,
                                                              bool repairs) {
  PS_TRY(auto const found_file, look_up(name));
  if (found_file.type() == proto::TYPE_FILE)
    return failure(Errc::refused, "'" + name.name +
                                      "' is a raw volume, which has no tables; "
                                      "'pstorage check " +
                                      name.path() + "' checks its data");
  Cluster_directory directory(session_, name.path());
  PS_CHECK(directory.lock(Duration{0}));
  PS_TRY(auto const text, directory.read_text(descriptor_file, ploop::descriptor_bytes_max));
  PS_TRY(auto const found, ploop::Descriptor::parse(text));
  std::vector<Checked> results;
  for (auto const& delta : found.deltas()) {
    if (delta.is_raw) continue;
    ploop::Check_options options;
    options.is_read_only = true;
    if (repairs) {
      PS_TRY(bool const is_shared, directory.is_shared(delta.file));
      options.is_read_only = is_shared;  // a clone may be using it
    }
    options.may_fix_fatal = options.drop_in_use = true;
    PS_TRY(auto store,
           options.is_read_only ? directory.open_to_read(delta.file) : directory.open(delta.file));
    PS_TRY(auto report, ploop::check_image(store, options));
    results.push_back({delta.file, std::move(report)});
  }
  PS_CHECK(directory.close());
  return results;
}

}  // namespace pstorage::volume
