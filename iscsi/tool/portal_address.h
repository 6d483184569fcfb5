// The address that a target listens on: on this host or not, and bringing it here.
#pragma once

#include <functional>
#include <string>

#include "core/result.h"

namespace pstorage::iscsi {

/// Is `address` (numeric) one of this host's? Errors: the system's.
Outcome<bool> host_has_address(std::string const& address);

/// Puts `address` on `device` and tells the neighbours (IPv4: gratuitous ARP). It is there already:
/// only tells them. Needs CAP_NET_ADMIN. `turn` is called while ip(8) runs. Errors: what ip says.
Outcome<void> bring_address(std::string const& address, std::string const& device,
                            std::function<void()> const& turn);
/// Takes it from `device`. Not there: fine.
Outcome<void> drop_address(std::string const& address, std::string const& device,
                           std::function<void()> const& turn);

}  // namespace pstorage::iscsi
