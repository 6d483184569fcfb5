// Ending leases by force.
#pragma once

#include <functional>
#include <string>

#include "core/result.h"
#include "mds.pb.h"

namespace pstorage::cli {

using Mds_call = std::function<Outcome<proto::Mds_reply>(proto::Mds_request)>;

/// Takes the lease of the file `path` away from whoever has it; of a volume that is a directory the
/// leases of all files in it. Errors: not_found (nobody has it), what the MDS answers.
Outcome<void> revoke(Mds_call const& call, std::string const& path);

}  // namespace pstorage::cli
