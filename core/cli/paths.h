// Paths as users give them: inside the cluster (-p), pstorage://NAME/PATH, or below a mount point.
#pragma once

#include <string>

#include "core/result.h"

namespace pstorage::cli {

/// The path inside the cluster. `inside`: `given` is one already (-p). Errors: bad_request.
Outcome<std::string> cluster_path(std::string const& cluster, std::string const& given,
                                  bool inside);

/// "/volumes/NAME". Errors: bad_request for names that leave it.
Outcome<std::string> volume_path(std::string const& name);

}  // namespace pstorage::cli
