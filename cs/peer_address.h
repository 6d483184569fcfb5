// Which address of another chunk server to use.
#pragma once

#include "core/address.h"
#include "core/ids.h"
#include "mds.pb.h"

namespace pstorage::cs {

/// The unix socket on the same host, else the first other one; empty when there is none.
Address pick_address(proto::Cs_address const& server, Host_id own_host);

}  // namespace pstorage::cs
