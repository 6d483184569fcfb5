// Paths as users give them: inside the cluster (-p), pstorage://NAME/PATH, or below a mount point.
#pragma once

#include <string>

#include "core/result.h"

namespace pstorage::cli {

/// The path inside the cluster. `inside`: `given` is one already (-p). Errors: bad_request.
Outcome<std::string> cluster_path(std::string const& cluster, std::string const& given,
                                  bool inside);

}  // namespace pstorage::cli
