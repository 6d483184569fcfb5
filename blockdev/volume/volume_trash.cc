// Deleting, and taking it back.
#include <algorithm>
#include <charconv>

#include "blockdev/volume/volume_work.h"

namespace pstorage::volume {
namespace {

constexpr char const* name_property = "trash.name";
constexpr char const* deleted_property = "trash.deleted_ms";
constexpr char const* retention_property = "trash.retention_s";
constexpr Duration retention_default = std::chrono::hours(24 * 7);

std::string property(proto::File const& file, char const* name) {
  auto const found = file.properties().find(name);
  return found == file.properties().end() ? std::string() : found->second;
}

std::uint64_t number(std::string const& text, std::uint64_t otherwise) {
  std::uint64_t value = otherwise;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

Outcome<void> Volume_work::remove(Volume_name const& name, bool now) {
  PS_TRY(auto const file, look_up(name));
  PS_CHECK(make_directory(trash_root, {}, true));
  auto const id = ploop::new_guid(session_.random()).substr(1, 13);
  auto const place = std::string(trash_root) + "/" + id;
  // The lease keeps everybody else away until the name is gone.
  std::shared_ptr<client::Volume> raw;
  Cluster_directory directory(session_, name.path());
  if (file.type() == proto::TYPE_FILE) {
    PS_TRY(raw, session_.open(name.path()));
  } else {
    auto const locked = directory.lock(Duration{0});
    if (!locked.has_value() && errc_of(locked.error().code) == Errc::not_found)
      return failure(Errc::is_directory,
                     "'" + name.name + "' is a directory of volumes: remove those first");
    PS_CHECK(locked);
  }
  auto const guard = raw ? session_.cluster().guard_of(*raw) : directory.guard();
  proto::Mds_request note;
  *note.mutable_guard() = guard;
  note.mutable_set_attributes()->set_path(name.path());
  auto& properties = *note.mutable_set_attributes()->mutable_properties();
  properties[name_property] = name.name;
  properties[deleted_property] = std::to_string(session_.wall_ms());
  PS_TRY(auto const noted, session_.call(std::move(note)));
  PS_CHECK(move(name.path(), place + "-" + std::to_string(noted.file().id()), &guard));
  PS_CHECK(raw ? session_.close(raw) : directory.close());
  if (now) return remove_tree(place + "-" + std::to_string(noted.file().id()));
  return success();
}

Outcome<std::vector<Volume_work::Trashed>> Volume_work::trash() {
  proto::Mds_request request;
  request.mutable_list_directory()->set_path(trash_root);
  auto const listed = session_.call(std::move(request));
  std::vector<Trashed> found;
  if (!listed.has_value()) {
    if (errc_of(listed.error().code) == Errc::not_found) return found;
    return listed.error();
  }
  for (auto const& file : listed.value().files().files()) {
    auto const size =
        file.type() == proto::TYPE_FILE ? file.size() : number(property(file, size_property), 0);
    found.push_back({file.name(), property(file, name_property),
                     number(property(file, deleted_property), 0), size});
  }
  std::sort(found.begin(), found.end(),
            [](auto const& a, auto const& b) { return a.deleted_ms < b.deleted_ms; });
  return found;
}

Outcome<void> Volume_work::undelete(std::string const& what, std::string const& new_name) {
  PS_TRY(auto const all, trash());
  Trashed const* chosen = nullptr;
  for (auto const& one : all)
    if (one.id == what || one.name == what) chosen = &one;  // the last one deleted
  if (chosen == nullptr)
    return failure(Errc::not_found,
                   "'" + what + "' is not in the trash; 'pstorage volume trash' lists what is");
  PS_TRY(auto const target, parse_plain_name(new_name.empty() ? chosen->name : new_name));
  PS_CHECK(make_directory(split_last(target.path()).first, {}, true));
  auto const moved = move(std::string(trash_root) + "/" + chosen->id, target.path(), nullptr);
  if (moved.has_value() || errc_of(moved.error().code) != Errc::exists) return moved;
  return failure(Errc::exists,
                 "the volume '" + target.name + "' exists already: give another name with --as");
}

Outcome<std::uint64_t> Volume_work::purge(Duration older_than) {
  auto const now_ms = session_.wall_ms();
  auto const age = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(older_than).count());
  PS_TRY(auto const all, trash());
  std::uint64_t purged = 0;
  for (auto const& one : all) {
    if (one.deleted_ms + age > now_ms) continue;
    PS_CHECK(remove_tree(std::string(trash_root) + "/" + one.id));
    ++purged;
  }
  return purged;
}

Outcome<void> Volume_work::set_retention(Duration retention) {
  PS_CHECK(make_directory(trash_root, {}, true));
  auto const seconds = std::chrono::duration_cast<std::chrono::seconds>(retention).count();
  proto::Mds_request request;
  request.mutable_set_attributes()->set_path(trash_root);
  (*request.mutable_set_attributes()->mutable_properties())[retention_property] =
      std::to_string(seconds);
  PS_CHECK(session_.call(std::move(request)));
  return success();
}

Outcome<Duration> Volume_work::retention() {
  proto::Mds_request request;
  request.mutable_lookup()->set_path(trash_root);
  auto const found = session_.call(std::move(request));
  if (!found.has_value() && errc_of(found.error().code) == Errc::not_found)
    return retention_default;
  PS_CHECK(found);
  auto const fallback = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(retention_default).count());
  return Duration(
      std::chrono::seconds(number(property(found.value().file(), retention_property), fallback)));
}

}  // namespace pstorage::volume
