// Small files that are replaced as a whole: keys, lists, identities. Not for data.
#pragma once

#include <string>

#include "core/bytes.h"
#include "core/result.h"

namespace pstorage {

/// Replaces the file at `path` by `content` with permissions `mode` (as for chmod): after a crash
/// the file is the old or the new one, whole. Durable on success. Blocking.
/// Errors: the system's, with a line for a person. Thread: any.
Outcome<void> write_file_atomically(std::string const& path, Bytes content, unsigned mode);

/// Reads a file of at most `bytes_max` bytes. Errors: not_found, too_large, the system's.
Outcome<std::string> read_small_file(std::string const& path, std::size_t bytes_max);

/// Makes the content of the file at `path` durable. Blocking. Errors: the system's.
Outcome<void> make_durable(std::string const& path);

/// Makes `path` and the directories above it (mode 0755 for what is new).
Outcome<void> make_directories(std::string const& path);

}  // namespace pstorage
