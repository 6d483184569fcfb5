// The directory of a metadata server on disk: its identity. Layout: mds/format.md.
#pragma once

#include <string>

#include "core/address.h"
#include "core/ids.h"
#include "core/result.h"

namespace pstorage::mds {

struct Repository {
  std::string cluster;  // name
  std::string cluster_uuid;
  std::string member_uuid;  // random: a wiped repository is another member
  Mds_id id{1};
  Address address;  // between MDSs; clients use the port above it
};

/// A random uuid as text.
std::string random_uuid();

/// Writes the identity into `directory`, which is made if it is missing and must otherwise be empty
/// (lost+found apart). Nothing remains after a failure. Errors: not_empty, the system's.
Outcome<void> make_repository(std::string const& directory, Repository const& repository);
/// Takes a repository that make_repository has made, and nothing else has used, away again.
void unmake_repository(std::string const& directory);
/// Errors: not_found (not a repository), corrupt.
Outcome<Repository> load_repository(std::string const& directory);

}  // namespace pstorage::mds
