#include "blockdev/ploop/image_directory.h"

#include <filesystem>

#include "blockdev/ploop/disk_store.h"

namespace pstorage::ploop {
namespace {

Failure failed(std::string const& what, std::string const& path, std::error_code const& code) {
  if (code == std::errc::no_such_file_or_directory)
    return failure(Errc::not_found, "cannot " + what + " " + path + ": there is no such file");
  if (code == std::errc::file_exists)
    return failure(Errc::exists, "cannot " + what + " " + path + ": it exists already");
  return failure(code, "cannot " + what + " " + path + ": " + code.message());
}

}  // namespace

std::string Disk_directory::resolve(std::string const& name) const {
  auto const path = std::filesystem::path("/") / directory_ / name;
  return path.lexically_normal().relative_path();
}

Result<void> Disk_directory::sync_parent(std::string const& name) {
  return disk_.sync_directory(std::filesystem::path(resolve(name)).parent_path());
}

Outcome<Blocking_store> Disk_directory::open_as(std::string const& name, Open_mode mode) {
  auto const what = mode.create ? "create" : "open";
  auto file = disk_.open(resolve(name), mode);
  if (!file) return failed(what, path_of(name), file.error());
  auto store = open_disk_store(std::move(file.value()), executor_);
  if (!store) return failed(what, path_of(name), store.error());
  return Blocking_store(std::move(store.value()), turn_);
}

Outcome<Blocking_store> Disk_directory::open(std::string const& name) { return open_as(name, {}); }

Outcome<Blocking_store> Disk_directory::create(std::string const& name) {
  PS_TRY(auto store, open_as(name, {.create = true, .exclusive = true}));
  if (auto const synced = sync_parent(name); !synced)
    return failed("create", path_of(name), synced.error());
  return store;
}

Outcome<void> Disk_directory::remove(std::string const& name) {
  auto result = disk_.remove(resolve(name));
  if (!result && result.error() == std::errc::no_such_file_or_directory) return success();
  if (result) result = sync_parent(name);
  if (!result) return failed("remove", path_of(name), result.error());
  return success();
}

Outcome<std::string> Disk_directory::read_text(std::string const& name, std::size_t bytes_max) {
  auto const file = disk_.open(resolve(name), {});
  if (!file) return failed("read", path_of(name), file.error());
  auto const size = file.value()->size();
  if (!size) return failed("read", path_of(name), size.error());
  if (size.value() > bytes_max)
    return failure(Errc::too_large, path_of(name) + " is too large to be a descriptor");
  std::string text(size.value(), '\0');
  auto const result =
      file.value()->read(0, {reinterpret_cast<std::byte*>(text.data()), text.size()});
  if (!result) return failed("read", path_of(name), result.error());
  return text;
}

Outcome<void> Disk_directory::replace_text(std::string const& name, std::string const& text) {
  auto const temporary = resolve(name) + ".tmp";
  auto const replace = [&]() -> Result<void> {
    PS_TRY(auto const file, disk_.open(temporary, {.create = true}));
    PS_CHECK(file->truncate(0));
    PS_CHECK(file->write(0, as_bytes(text)));
    PS_CHECK(file->sync());
    PS_CHECK(disk_.rename(temporary, resolve(name)));
    return sync_parent(name);
  };
  if (auto const done = replace(); !done) return failed("write", path_of(name), done.error());
  return success();
}

}  // namespace pstorage::ploop
