// The work of `pstorage configure-cs`: another place for the journal of a chunk server.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/result.h"
#include "cs/repository.h"

namespace pstorage::cs {

enum class Journal_change : std::uint8_t {
  add,   // from the repository to a place of its own
  drop,  // back into the repository
  move   // from one place of its own to another
};

struct Configure_cs_options {
  std::string directory;
  Journal_change change = Journal_change::add;
  std::string journal_path;      // a file to be made, or a directory for it; not with drop
  std::uint64_t journal_mb = 0;  // rounded up to a multiple of 64; 0: as large as it was
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;  // bytes of the journal
};

/// Does it; csd must not run. Blocking. Cut off at any moment it leaves a repository that starts,
/// and the next call clears up. Errors: busy (csd runs, or was not stopped in order), refused,
/// exists, no_space, bad_request, the disks'; each a line for a person.
Outcome<Repository_identity> configure_cs(Configure_cs_options const& options);

}  // namespace pstorage::cs
