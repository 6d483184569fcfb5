// Starting a service of this host from a command.
#pragma once

#include <string>

#include "core/result.h"

namespace pstorage::cli {

/// 'service NAME start', whose output is passed on. Errors: it failed, or there is no such command.
Outcome<void> start_service(std::string const& name);

}  // namespace pstorage::cli
