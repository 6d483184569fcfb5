// Files whose last writer left without closing them. Nothing is repaired in one before a new writer
// has fenced the old one and made the replicas agree: where no user comes, a chunk server does it.
#pragma once

#include <map>

#include "core/env/clock.h"
#include "core/ids.h"

namespace pstorage::mds {

/// What the leader remembers of them. Lost with the process; then all of them are new.
struct Orphans {
  struct One {
    Time_point again_at;  // not before
    Duration pause;       // until the attempt after that
  };
  std::map<File_id, One> known;
  Time_point last_look{};
};

}  // namespace pstorage::mds
