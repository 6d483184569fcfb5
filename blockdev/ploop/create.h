// New, empty images.
#pragma once

#include "blockdev/ploop/blocking_store.h"
#include "blockdev/ploop/format.h"

namespace pstorage::ploop {

/// Writes an image without data into the empty file of `store`, durably. Preallocated: every
/// cluster has its place already, and zeros in it. Errors: the store's.
Outcome<void> create_image(Blocking_store& store, Header header, bool is_preallocated);

}  // namespace pstorage::ploop
