// Who a process is towards the others of its cluster.
#pragma once

#include <string>

#include "core/auth/key.h"
#include "core/env/network.h"
#include "core/ids.h"

namespace pstorage {

/// What this process says of itself in every hello, and how it proves that it may.
struct Identity {
  Role role = Role::tool;
  std::string name;  // empty: "program[pid]@host"
  Host_id host;
  std::string cluster;       // name
  std::string cluster_uuid;  // empty: not known yet; then any uuid is accepted
  Cluster_key key;
  bool encryption = false;  // net.encryption: stay in TLS after the handshake
};

}  // namespace pstorage
