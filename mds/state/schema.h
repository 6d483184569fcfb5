// Tables of the metadata database. What they mean: mds/format.md.
#pragma once

#include "mds/state/database.h"

namespace pstorage::mds {

inline constexpr std::uint64_t schema_version = 1;

/// Makes the tables of an empty database; refuses one of another version.
Outcome<void> prepare_schema(Database& database);

}  // namespace pstorage::mds
