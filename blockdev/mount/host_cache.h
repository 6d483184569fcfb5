// The read cache of a mount: 'pstorage-mount -C FILE -R MB'.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/cli/daemon.h"
#include "core/client/ssd_cache.h"
#include "core/runtime/runtime.h"

namespace pstorage::mount {

struct Cache_options {
  std::string path;       // empty: no cache
  std::uint64_t mib = 0;  // of data
};

/// Takes cache=FILE and cachesize=MB out of the options of mount(8), which know no -C and -R; makes
/// the path absolute. Errors: bad_request, also when only one of the two is given.
Outcome<void> take_cache_options(std::vector<std::string>& mount_options, Cache_options& options);

/// The cache's file, used by this process alone.
class Host_cache {
 public:
  /// Blocks. Errors: busy (another mount uses it), not_found (no such directory), the system's.
  static Outcome<std::unique_ptr<Host_cache>> open(Cache_options const& options,
                                                   std::string const& cluster_uuid,
                                                   Runtime& runtime);
  client::Read_cache& cache() { return *cache_; }
  /// The clean end, after which the next mount finds everything. Blocks.
  void close();

 private:
  Host_cache(cli::File_lock lock, std::unique_ptr<Disk> disk,
             std::unique_ptr<client::Ssd_cache> cache, Log& log)
      : lock_(std::move(lock)), disk_(std::move(disk)), cache_(std::move(cache)), log_(log) {}

  cli::File_lock lock_;
  std::unique_ptr<Disk> disk_;
  std::unique_ptr<client::Ssd_cache> cache_;
  Log& log_;
};

}  // namespace pstorage::mount
