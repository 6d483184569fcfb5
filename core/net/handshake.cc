#include "core/net/handshake.h"

#include "core/net/message.h"

namespace pstorage {
namespace {

bool sane(std::string const& text) { return text.size() <= hello_text_bytes_max; }

/// Why `other` may not talk to `self`; ok: it may. Both ends use it: a hello is not trusted more
/// because it is an answer.
Outcome<void> check(Identity const& self, std::uint32_t protocol, proto::Hello const& other) {
  if (other.protocol() != protocol)
    return failure(Errc::wrong_version,
                   "it speaks protocol version " + std::to_string(other.protocol()) + ", this is " +
                       std::to_string(protocol) + ": install the same pstorage version on both");
  if (!sane(other.name()) || !sane(other.cluster()) || !sane(other.cluster_uuid()))
    return failure(Errc::bad_request, "its hello is malformed");
  if (other.cluster() != self.cluster)
    return failure(Errc::wrong_cluster, "it belongs to cluster '" + other.cluster() +
                                            "', this is '" + self.cluster + "'");
  if (!other.cluster_uuid().empty() && !self.cluster_uuid.empty() &&
      other.cluster_uuid() != self.cluster_uuid)
    return failure(Errc::wrong_cluster, "it belongs to another cluster of the name '" +
                                            self.cluster + "' (uuid " + other.cluster_uuid() +
                                            ", this is " + self.cluster_uuid + ")");
  if (other.role() < static_cast<std::uint32_t>(Role::mds) ||
      other.role() > static_cast<std::uint32_t>(Role::tool))
    return failure(Errc::bad_request, "its hello names an unknown role");
  return success();
}

}  // namespace

proto::Hello make_hello(Identity const& self, std::uint32_t protocol) {
  proto::Hello hello;
  hello.set_protocol(protocol);
  hello.set_role(static_cast<std::uint32_t>(self.role));
  hello.set_name(self.name);
  hello.set_host_id(self.host.value);
  hello.set_cluster(self.cluster);
  hello.set_cluster_uuid(self.cluster_uuid);
  hello.set_encryption(self.encryption);
  return hello;
}

proto::Hello_reply answer_hello(Identity const& self, std::uint32_t protocol,
                                proto::Hello const& asked) {
  proto::Hello_reply reply;
  *reply.mutable_hello() = make_hello(self, protocol);
  auto const allowed = check(self, protocol, asked);
  if (allowed) {
    reply.set_encrypted(self.encryption || asked.encryption());
  } else {
    reply.set_status(static_cast<std::uint32_t>(errc_of(allowed.error().code)));
    reply.set_text(allowed.error().text);
  }
  return reply;
}

Outcome<void> check_hello_reply(Identity const& self, std::uint32_t protocol,
                                proto::Hello_reply const& reply, std::string const& server) {
  // Our own check first: its words are from our side ("it" is the server).
  if (auto const allowed = check(self, protocol, reply.hello()); !allowed)
    return failure(allowed.error().code, "refused " + server + ": " + allowed.error().text);
  if (reply.status() != 0)
    return failure(static_cast<Errc>(reply.status()),
                   "refused by " + server + ": " + reply.text().substr(0, hello_text_bytes_max));
  if (self.encryption && !reply.encrypted())
    return failure(Errc::refused, "refused " + server + ": it would not encrypt");
  return success();
}

Peer_info peer_info_of(proto::Hello const& hello) {
  Peer_info info;
  info.role = static_cast<Role>(hello.role());
  info.name = hello.name();
  info.host = {hello.host_id()};
  info.cluster_uuid = hello.cluster_uuid();
  return info;
}

std::string frame_control(google::protobuf::MessageLite const& message, bool is_reply) {
  std::string wire(header_bytes, '\0');
  message.AppendToString(&wire);
  Header header;
  header.is_reply = is_reply;
  header.request_id = 1;
  encode_header(header, static_cast<std::uint32_t>(wire.size() - header_bytes), 0,
                reinterpret_cast<std::byte*>(wire.data()));
  return wire;
}

}  // namespace pstorage
