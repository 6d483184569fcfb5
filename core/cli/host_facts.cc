#include "core/cli/host_facts.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/config/etc.h"
#include "core/disk/atomic_file.h"
#include "core/disk/posix_disk.h"
#include "core/runtime/real_clock.h"
#include "core/version.h"

namespace pstorage::cli {
namespace {

constexpr int sync_samples = 8;

std::string first_line(std::string const& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

/// The type of the file system that `directory` is on: of the longest mount point above it.
std::string file_system_of(std::string const& directory) {
  std::error_code error;
  auto const real = std::filesystem::canonical(directory, error).string();
  std::ifstream mounts("/proc/self/mounts");
  std::string found;
  std::size_t longest = 0;
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    std::string device, point, type;
    words >> device >> point >> type;
    bool const is_above =
        point == "/" || real == point || (real.starts_with(point) && real[point.size()] == '/');
    if (!is_above || point.size() < longest) continue;
    longest = point.size();
    found = type;
  }
  return found;
}

/// The disk below the file system: what the kernel says of its cache and kind.
void look_at_device(Repository_facts& facts) {
  struct stat status {};
  if (::stat(facts.directory.c_str(), &status) != 0) return;
  auto const place = "/sys/dev/block/" + std::to_string(major(status.st_dev)) + ":" +
                     std::to_string(minor(status.st_dev));
  std::error_code error;
  std::filesystem::path disk = std::filesystem::canonical(place, error);
  if (error) return;  // tmpfs, overlay, FUSE
  if (std::filesystem::exists(disk / "partition", error)) disk = disk.parent_path();
  facts.device = disk.filename().string();
  facts.write_cache = first_line((disk / "queue/write_cache").string());
  auto const rotating = first_line((disk / "queue/rotational").string());
  if (!rotating.empty()) facts.is_rotating = rotating == "1";
}

/// Milliseconds that a write of 4 KiB takes to be durable, on average; nothing: it cannot be done.
std::optional<double> sync_time(std::string const& directory) {
  Io_pool pool;
  auto const disk = open_posix_disk(directory, pool, [](auto const&) {});
  if (!disk.has_value()) return std::nullopt;
  auto const name = ".doctor." + std::to_string(::getpid());
  auto file = disk.value()->open(name, {.create = true, .exclusive = true});
  if (!file.has_value()) return std::nullopt;
  std::array<std::byte, 4096> block{};
  bool is_well =
      file.value()->write(0, Bytes(block)).has_value() && file.value()->sync().has_value();
  Real_clock const clock;
  auto const begin = clock.now();
  for (int i = 0; i < sync_samples && is_well; ++i) {
    block[0] = static_cast<std::byte>(i + 1);
    is_well = file.value()->write(0, Bytes(block)).has_value() && file.value()->sync().has_value();
  }
  std::chrono::duration<double, std::milli> const took = clock.now() - begin;
  file.value().reset();
  is_well = disk.value()->remove(name).has_value() && is_well;
  return is_well ? std::optional(took.count() / sync_samples) : std::nullopt;
}

}  // namespace

std::vector<std::string> noted_repositories(std::string const& cluster, std::string const& kind) {
  std::vector<std::string> found;
  std::ifstream list(cluster_directory(cluster) + "/" + kind + ".list");
  for (std::string line; std::getline(list, line);) {
    if (!line.empty()) found.push_back(line);
  }
  return found;
}

Host_facts host_facts(std::string const& cluster) {
  Host_facts facts;
  facts.version = version();
  timex clock{};
  if (auto const state = ::adjtimex(&clock); state >= 0) {
    facts.is_clock_synchronised = state != TIME_ERROR;
  }
  struct stat key {};
  if (::stat(key_path(cluster).c_str(), &key) == 0) facts.key_mode = key.st_mode & 07777;
  for (auto const* const kind : {"mds", "cs"}) {
    for (auto const& directory : noted_repositories(cluster, kind)) {
      Repository_facts repository;
      repository.kind = kind;
      repository.directory = directory;
      std::error_code error;
      repository.is_there = std::filesystem::exists(directory + "/repository.json", error);
      if (repository.is_there) {
        repository.file_system = file_system_of(directory);
        look_at_device(repository);
        repository.sync_ms = sync_time(directory);
      }
      facts.repositories.push_back(std::move(repository));
    }
  }
  return facts;
}

}  // namespace pstorage::cli
