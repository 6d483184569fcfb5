// The version of all programs.
#pragma once

namespace pstorage {

/// As --version prints it: "0.1.0".
char const* version();

}  // namespace pstorage
