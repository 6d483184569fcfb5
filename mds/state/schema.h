// Tables of the metadata database. What they mean: mds/format.md.
#pragma once

#include "mds/state/database.h"

namespace pstorage::mds {

inline constexpr std::uint64_t schema_version = 3;

/// Makes the tables of an empty database, brings an older one up to this version in place; refuses
/// a newer one.
Outcome<void> prepare_schema(Database& database);

}  // namespace pstorage::mds
