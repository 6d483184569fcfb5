#include "mds/raft/peer_network.h"

#include <utility>

namespace pstorage::mds::raft {
namespace {

constexpr std::uint16_t default_port = 2510;

}  // namespace

Peer_network::Peer_network(Clock& clock, Network& network, Log& log, Options options,
                           Peer_listener& listener)
    : clock_(clock),
      network_(network),
      log_(log),
      options_(std::move(options)),
      listener_(listener) {}

Peer_network::~Peer_network() {
  for (auto const& [connection, known] : connections_) network_.close(connection);
}

void Peer_network::set_members(Configuration const& configuration) {
  for (auto it = peers_.begin(); it != peers_.end();) {
    auto const* member = configuration.find(it->first);
    bool const is_kept = member != nullptr && member->address == it->second.address;
    // One that we have no address of may still be heard and answered.
    if (is_kept || (member == nullptr && !it->second.link)) {
      ++it;
      continue;
    }
    if (it->second.link) close(it->second.link);
    it = peers_.erase(it);
  }
  for (auto const& member : configuration.members) {
    if (member.id == options_.id) continue;
    auto& peer = peers_[member.id];
    peer.address = member.address;
    if (!peer.link) peer.link = connect(member.id, member.address);
  }
}

Connection_id Peer_network::connect(Member_id to, std::string const& address) {
  auto const parsed = Address::parse(address, default_port);
  if (!parsed.has_value()) return {};
  auto const connection = network_.connect(parsed.value(), *this);
  connections_[connection] = {.member = to, .is_ours = true};
  return connection;
}

void Peer_network::say_hello(Connection_id connection, Member_id to) {
  raft_wire::Packet packet;
  auto& hello = *packet.mutable_hello();
  hello.set_version(raft_protocol_version);
  hello.set_cluster_uuid(options_.cluster_uuid);
  hello.set_from(options_.id.value);
  hello.set_to(to.value);
  network_.send(connection, to_message(packet));
}

Connection_id Peer_network::open_stream(Member_id to) {
  auto const found = peers_.find(to);
  return found == peers_.end() ? Connection_id{} : connect(to, found->second.address);
}

void Peer_network::send(Raft_message const& message) {
  auto const found = peers_.find(message.to);
  if (found == peers_.end()) return;
  auto const link = connections_.find(found->second.link);
  bool const has_link = link != connections_.end() && link->second.is_open;
  auto const connection = has_link ? link->first : found->second.incoming;
  if (!connection || network_.queued_bytes(connection) > options_.queue_bytes_max) return;
  raft_wire::Packet packet;
  encode(message, *packet.mutable_message());
  network_.send(connection, to_message(packet));
}

void Peer_network::send(Connection_id connection, raft_wire::Packet const& packet, Slice data) {
  auto const found = connections_.find(connection);
  if (found == connections_.end()) return;
  auto message = to_message(packet, std::move(data));
  if (found->second.is_open) {
    network_.send(connection, std::move(message));
  } else {
    found->second.early.push_back(std::move(message));
  }
}

void Peer_network::close(Connection_id connection) {
  connections_.erase(connection);
  network_.close(connection);
}

void Peer_network::on_tick() {
  auto const now = clock_.now();
  for (auto& [member, peer] : peers_) {
    if (peer.link || peer.address.empty() || now < peer.next_attempt) continue;
    peer.next_attempt = now + options_.reconnect_interval;
    peer.link = connect(member, peer.address);
  }
}

void Peer_network::on_connected(Connection_id connection, Peer_info const& peer) {
  if (peer.role != Role::mds) {
    log_.warn("only metadata servers may connect here", {{"peer", peer.name}});
    connections_.erase(connection);
    network_.close(connection);
    return;
  }
  auto& known = connections_[connection];  // an incoming one is new
  known.is_open = true;
  if (!known.is_ours) return;
  say_hello(connection, known.member);
  for (auto& message : std::exchange(known.early, {})) {
    network_.send(connection, std::move(message));
  }
}

bool Peer_network::greet(Connection_id connection, raft_wire::Hello const& hello) {
  if (hello.version() != raft_protocol_version || hello.cluster_uuid() != options_.cluster_uuid ||
      hello.to() != options_.id.value || hello.from() == 0) {
    log_.warn("a metadata server took us for another",
              {{"cluster_uuid", hello.cluster_uuid()}, {"member", hello.to()}});
    return false;
  }
  connections_[connection].member = Member_id{hello.from()};
  return true;
}

void Peer_network::on_message(Connection_id connection, Message& message) {
  auto const known = connections_.find(connection);
  if (known == connections_.end()) return;
  auto packet = to_packet(message);
  bool is_good = packet.has_value();
  if (is_good && !known->second.member) {
    is_good = packet->has_hello() && greet(connection, packet->hello());
    if (is_good) return;
  }
  if (!is_good) {
    close(connection);
    listener_.on_stream_closed(connection);
    return;
  }
  auto const from = known->second.member;
  if (!packet->has_message()) {
    listener_.on_stream_packet(connection, from, *packet, std::move(message.data));
    return;
  }
  auto decoded = decode(*packet->mutable_message());
  if (!decoded) return;
  auto& peer = peers_[from];
  if (peer.link != connection) peer.incoming = connection;
  decoded->from = from;
  decoded->to = options_.id;
  listener_.on_raft_message(std::move(*decoded));
}

void Peer_network::on_disconnected(Connection_id connection, Failure const& why) {
  connections_.erase(connection);
  for (auto& [member, peer] : peers_) {
    if (peer.incoming == connection) peer.incoming = {};
    if (peer.link != connection) continue;
    log_.debug("no connection to a metadata server", {{"member", member}, {"reason", why.text}});
    peer.link = {};
    peer.next_attempt = clock_.now() + options_.reconnect_interval;
  }
  listener_.on_stream_closed(connection);
}

}  // namespace pstorage::mds::raft
