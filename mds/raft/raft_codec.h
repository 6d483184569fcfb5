// Raft messages to and from their Protobuf form.
#pragma once

#include <optional>

#include "core/env/network.h"
#include "mds/raft/raft_types.h"
#include "raft.pb.h"

namespace pstorage::mds::raft {

inline constexpr std::uint32_t raft_protocol_version = 1;

/// The two ends are not in it: the connection's hello named them.
void encode(Raft_message const& message, raft_wire::Raft& to);
/// Nothing: malformed.
std::optional<Raft_message> decode(raft_wire::Raft& from);

/// `packet` as the meta part of a message, with `data`.
Message to_message(raft_wire::Packet const& packet, Slice data = {});
std::optional<raft_wire::Packet> to_packet(Message const& message);

}  // namespace pstorage::mds::raft
