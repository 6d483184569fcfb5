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
  Address address;           // between MDSs; clients use the port above it
  bool is_first = false;     // made the cluster: its log begins with it as the only member
  bool has_started = false;  // then its log is there, or it was lost
};

/// Who it is in the metadata log: from member_uuid, never 0.
std::uint64_t member_id(Repository const& repository);

/// A random uuid as text.
std::string random_uuid();

/// Can `directory` become a repository? It is missing, or empty but for lost+found. Errors:
/// not_empty, the system's.
Outcome<void> check_repository_place(std::string const& directory);
/// Writes the identity into `directory`, which is made if it is missing and must otherwise be empty
/// (lost+found apart). Nothing remains after a failure. Errors: not_empty, the system's.
Outcome<void> make_repository(std::string const& directory, Repository const& repository);
/// Takes a repository that make_repository has made, and nothing else has used, away again.
void unmake_repository(std::string const& directory);
/// Notes that the server has run.
Outcome<void> mark_started(std::string const& directory, Repository repository);
/// Errors: not_found (not a repository), corrupt.
Outcome<Repository> load_repository(std::string const& directory);

}  // namespace pstorage::mds
