#include "blockdev/mount/host_cache.h"

#include <charconv>
#include <filesystem>
#include <fstream>

namespace pstorage::mount {
namespace {

Outcome<std::string> boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  if (std::getline(file, id) && !id.empty()) return id;
  return failure(Errc::io_error, "cannot read /proc/sys/kernel/random/boot_id");
}

}  // namespace

Outcome<void> take_cache_options(std::vector<std::string>& mount_options, Cache_options& options) {
  constexpr std::string_view path = "cache=", size = "cachesize=";
  std::vector<std::string> others;
  for (auto const& one : mount_options) {
    if (one.starts_with(path)) {
      options.path = one.substr(path.size());
    } else if (one.starts_with(size)) {
      auto const* const from = one.data() + size.size();
      auto const* const end = one.data() + one.size();
      auto const [at, error] = std::from_chars(from, end, options.mib);
      if (error != std::errc() || at != end || options.mib == 0)
        return failure(Errc::bad_request, one + ": give a number of MiB");
    } else {
      others.push_back(one);
    }
  }
  mount_options = std::move(others);
  if (options.path.empty() != (options.mib == 0))
    return failure(
        Errc::bad_request,
        "a read cache needs its file (-C FILE or -o cache=FILE) and its size (-R MB or -o "
        "cachesize=MB)");
  if (!options.path.empty()) options.path = std::filesystem::absolute(options.path).string();
  return success();
}

Outcome<std::unique_ptr<Host_cache>> Host_cache::open(Cache_options const& options,
                                                      std::string const& cluster_uuid,
                                                      Runtime& runtime) {
  std::filesystem::path const path(options.path);
  PS_TRY(auto lock, cli::File_lock::acquire(options.path + ".lock"));
  PS_TRY(auto disk, runtime.open_disk(path.parent_path().string()));
  auto file = disk->open(path.filename().string(), {.create = true, .exclusive = false});
  if (!file)
    return failure(file.error(), "the read cache " + options.path + ": " + file.error().message());
  client::Ssd_cache_options cache_options;
  PS_TRY(cache_options.boot_id, boot_id());
  cache_options.cluster_uuid = cluster_uuid;
  cache_options.size_bytes = options.mib << 20;
  PS_TRY(auto cache,
         client::Ssd_cache::open(std::move(file).value(), cache_options, runtime.log()));
  runtime.log().info(
      "read cache",
      {{"file", options.path}, {"mib", options.mib}, {"slots_used", cache->slots_used()}});
  return std::unique_ptr<Host_cache>(
      new Host_cache(std::move(lock), std::move(disk), std::move(cache), runtime.log()));
}

void Host_cache::close() {
  cache_->close();
  auto const& counted = cache_->counters();
  log_.info("read cache closed", {{"hits", counted.hits},
                                  {"misses", counted.misses},
                                  {"fills", counted.fills},
                                  {"damaged", counted.damaged}});
}

}  // namespace pstorage::mount
