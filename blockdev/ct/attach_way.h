// By which way the disk of a container becomes a device of this host. Pure.
#pragma once

#include <optional>
#include <string>

#include "core/result.h"

namespace pstorage::ct {

enum class Way {
  nbd,  // the kernel's NBD client, and pstorage-nbd
  fuse  // pstorage-mount's disk view, and a loop device
};

/// "nbd", "fuse"; empty: nothing. Errors: bad_request.
Outcome<std::optional<Way>> parse_way(std::string const& text);

/// What this host has.
struct Host_ways {
  bool has_kernel_nbd = false;
  bool has_nbd_server = false;
  std::string view;  // where pstorage-mount has the cluster; empty: nowhere
};

/// `wish`, or NBD before FUSE. Errors: refused, with what to start.
Outcome<Way> choose_way(std::optional<Way> wish, Host_ways const& host, std::string const& cluster);

}  // namespace pstorage::ct
