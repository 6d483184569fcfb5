// A daemon that root has started goes on as somebody who owns nothing but its repository.
#pragma once

#include <string>
#include <vector>

#include "core/result.h"

namespace pstorage::cli {

/// Gives `paths` (directories with all that is in them) to `user` and becomes that user, for good,
/// with its group and no others. Nothing to do when it is that user already. Call before anything
/// starts a thread, after what only root may read was read. Errors: there is no such user; only
/// root can become another one; the user cannot reach a path.
Outcome<void> run_as(std::string const& user, std::vector<std::string> const& paths);

}  // namespace pstorage::cli
