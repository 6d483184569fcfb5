// discover.
#pragma once

#include "core/cli/commands.h"

namespace pstorage::cli {

/// Adds 'discover': which clusters this host can find, how, and who answers there.
void add_discover(Cli& cli);

}  // namespace pstorage::cli
