#include "core/cli/paths.h"

#include <fstream>
#include <sstream>

namespace pstorage::cli {
namespace {

constexpr char const* scheme = "pstorage://";

/// `path` below the longest mount point of the cluster; empty when there is none.
std::string below_mount(std::string const& cluster, std::string const& path) {
  std::ifstream mounts("/proc/self/mounts");
  std::string line;
  std::string best;
  std::size_t best_size = 0;
  while (std::getline(mounts, line)) {
    std::istringstream fields(line);
    std::string source;
    std::string point;
    std::string type;
    fields >> source >> point >> type;
    if (type != "fuse.pstorage" || source != scheme + cluster || point.size() < best_size) {
      continue;
    }
    if (path == point) {
      best.assign(1, '/');  // not = "/": g++ 12 -O2 sees a -Wrestrict in it (its bug 105329)
      best_size = point.size();
    } else if (path.starts_with(point + "/")) {
      best = path.substr(point.size());
      best_size = point.size();
    }
  }
  return best;
}

}  // namespace

Outcome<std::string> cluster_path(std::string const& cluster, std::string const& given,
                                  bool inside) {
  auto const prefix = scheme + cluster;
  if (given == prefix) return std::string("/");
  if (given.starts_with(prefix + "/")) return given.substr(prefix.size());
  if (inside) return given.starts_with('/') ? given : "/" + given;
  auto mounted = below_mount(cluster, given);
  if (!mounted.empty()) return mounted;
  return failure(Errc::bad_request, "'" + given + "' is not on a mount of cluster '" + cluster +
                                        "': give -p for a path inside the cluster");
}

}  // namespace pstorage::cli
