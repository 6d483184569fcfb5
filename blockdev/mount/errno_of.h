// What a program that uses the mount is told.
#pragma once

#include <system_error>

namespace pstorage::mount {

/// The errno of a pstorage error; EIO for those of other categories.
int errno_of(std::error_code const& code);

}  // namespace pstorage::mount
