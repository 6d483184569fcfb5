#include "core/net/socket_network.h"

#include <algorithm>

#include "core/assert.h"
#include "core/net/resolver.h"
#include "core/net/socket.h"
#include "core/net/socket_connection.h"
#include "core/net/stream_acceptor.h"

namespace pstorage {

Socket_network::Socket_network(Event_loop& loop, Network_options options, Clock& clock, Log& log)
    : loop_(loop),
      options_(std::move(options)),
      clock_(clock),
      log_(log),
      payloads_(options_.shared_payload_bytes),
      resolver_(std::make_unique<Resolver>(loop)) {}

Socket_network::~Socket_network() {
  for (auto const& acceptor : acceptors_) acceptor->stop();
  // close() takes each one out of the table; the copy keeps it alive until it is done.
  for (auto const& connection : std::vector(slots_))
    if (connection) connection->close();
}

Tls_context& Socket_network::tls() {
  if (!tls_) tls_ = std::make_unique<Tls_context>(options_.identity.cluster, options_.identity.key);
  return *tls_;
}

Socket_connection* Socket_network::find(Connection_id id) const {
  auto const slot = id.value & ((std::uint64_t{1} << slot_bits) - 1);
  if (slot >= slots_.size()) return nullptr;
  auto* const connection = slots_[slot].get();
  return connection != nullptr && connection->id() == id ? connection : nullptr;
}

Connection_id Socket_network::add(std::shared_ptr<Socket_connection> connection) {
  if (free_slots_.empty()) {
    PS_ASSERT(slots_.size() < std::size_t{1} << slot_bits);
    free_slots_.push_back(static_cast<std::uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  auto const slot = free_slots_.back();
  free_slots_.pop_back();
  Connection_id const id{next_counter_++ << slot_bits | slot};
  connection->set_id(id);
  slots_[slot] = std::move(connection);
  ++connections_;
  return id;
}

void Socket_network::remove(Connection_id id) {
  auto* const connection = find(id);
  if (connection == nullptr) return;
  authenticated(*connection);  // no longer one of the unauthenticated ones
  auto const slot = static_cast<std::uint32_t>(id.value & ((std::uint64_t{1} << slot_bits) - 1));
  free_slots_.push_back(slot);
  --connections_;
  // Last: the connection may end with it.
  auto const last = std::move(slots_[slot]);
}

Connection_id Socket_network::connect_as(Role role, Address const& to,
                                         Connection_handler& handler) {
  auto connection = std::make_shared<Socket_connection>(*this, handler, to, false);
  connection->set_role(role);
  auto const id = add(connection);
  // Outgoing connections are our own doing, so above the limit they fail instead of others.
  if (connections_ > options_.connections_max)
    connection->fail(failure(
        Errc::too_large, "more than " + std::to_string(options_.connections_max) + " connections"));
  else
    connection->start_connect();
  return id;
}

Outcome<Address> Socket_network::listen(Address const& at, Connection_handler& handler) {
  Address real;
  PS_TRY(auto fd, listen_at(at, real));
  tls();
  auto acceptor = std::make_shared<Stream_acceptor>(
      loop_, real, std::move(fd),
      [this, real, &handler](File_descriptor socket) {
        accepted(std::move(socket), real, handler);
      },
      [this, real](std::error_code error) {
        note_refused("a client of " + real.text(), "accept failed: " + error.message());
      });
  acceptor->start();
  acceptors_.push_back(std::move(acceptor));
  return real;
}

void Socket_network::accepted(File_descriptor fd, Address const& at, Connection_handler& handler) {
  if (connections_ >= options_.connections_max)
    return note_refused(peer_text(fd.get(), at.unix_path),
                        "more than " + std::to_string(options_.connections_max) + " connections");
  if (unauthenticated_count_ >= options_.unauthenticated_max) drop_oldest_unauthenticated();
  auto connection = std::make_shared<Socket_connection>(*this, handler, at, true);
  unauthenticated_.push_back(add(connection));
  ++unauthenticated_count_;
  connection->set_counted(true);
  connection->start_accepted(std::move(fd));
}

// A handshake takes milliseconds, so the oldest unfinished one is the likeliest to be a port scan;
// refusing the new one instead would let a scan lock everybody out.
void Socket_network::drop_oldest_unauthenticated() {
  while (!unauthenticated_.empty()) {
    auto* const oldest = find(unauthenticated_.front());
    unauthenticated_.pop_front();
    if (oldest == nullptr || !oldest->counted()) continue;
    note_refused(oldest->peer_address(), "too many connections without a handshake");
    return oldest->close();
  }
}

void Socket_network::authenticated(Socket_connection& connection) {
  if (!connection.counted()) return;
  connection.set_counted(false);
  --unauthenticated_count_;
  while (!unauthenticated_.empty()) {
    auto const* const oldest = find(unauthenticated_.front());
    if (oldest != nullptr && oldest->counted()) break;
    unauthenticated_.pop_front();
  }
}

void Socket_network::send(Connection_id connection, Message message) {
  if (auto* const found = find(connection)) found->send(std::move(message));
}

Slice Socket_network::take_payload(std::size_t bytes) {
  return payloads_.take(bytes).value_or(Slice());
}

void Socket_network::close(Connection_id connection) {
  if (auto* const found = find(connection)) found->close();
}

std::size_t Socket_network::queued_bytes(Connection_id connection) const {
  auto const* const found = find(connection);
  return found != nullptr ? found->queued_bytes() : 0;
}

void Socket_network::on_tick() {
  static constexpr unsigned ticks_a_check = 5;
  if (++ticks_ % ticks_a_check != 0) return;
  auto const now = clock_.now();
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    // A copy: what ends here leaves the table.
    auto const connection = slots_[i];
    if (connection) connection->check_deadline(now);
  }
  for (auto const& acceptor : acceptors_) acceptor->resume();
}

void Socket_network::flush_turn() {
  std::swap(dirty_, flushing_);
  for (auto const id : flushing_)
    if (auto* const connection = find(id)) connection->flush();
  flushing_.clear();
}

void Socket_network::note_refused(std::string const& peer, std::string const& reason) {
  std::uint64_t suppressed = 0;
  if (!refusals_.allow(clock_.now(), suppressed)) return;
  if (suppressed > 0)
    log_.warn("refused a connection", {{"peer", peer}, {"reason", reason}, {"more", suppressed}});
  else
    log_.warn("refused a connection", {{"peer", peer}, {"reason", reason}});
}

}  // namespace pstorage
