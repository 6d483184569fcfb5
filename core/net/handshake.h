// What two processes say to each other first, inside TLS. Pure. core/format.md "Hello".
#pragma once

#include <cstdint>
#include <string>

#include "core/net/identity.h"
#include "core/result.h"
#include "hello.pb.h"

namespace pstorage {

/// Grows with every change of core/format.md or of the .proto files.
inline constexpr std::uint32_t protocol_version = 3;

/// Longest name, cluster name or uuid that a hello may carry.
inline constexpr std::size_t hello_text_bytes_max = 256;

proto::Hello make_hello(Identity const& self, std::uint32_t protocol);

/// The server's answer to `asked`: welcome, or refused with the reason.
proto::Hello_reply answer_hello(Identity const& self, std::uint32_t protocol,
                                proto::Hello const& asked);

/// The client's view of that answer: ok, or why there is no connection. `server`: its address.
Outcome<void> check_hello_reply(Identity const& self, std::uint32_t protocol,
                                proto::Hello_reply const& reply, std::string const& server);

/// The part of Peer_info that a hello tells.
Peer_info peer_info_of(proto::Hello const& hello);

/// `message` as a control message on the wire, header included.
std::string frame_control(google::protobuf::MessageLite const& message, bool is_reply);

}  // namespace pstorage
