// What doctor and make-report look at on this host.
#pragma once

#include <string>
#include <vector>

#include "core/cli/doctor.h"
#include "core/result.h"

namespace pstorage::cli {

/// Directories of the repositories of `cluster` that this host has noted. `kind`: mds, cs.
std::vector<std::string> noted_repositories(std::string const& cluster, std::string const& kind);
/// Measures, too: each repository's disk is written and synced a few times.
Host_facts host_facts(std::string const& cluster);

}  // namespace pstorage::cli
