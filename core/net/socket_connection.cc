// Socket_connection: life and death. See socket_receive.cc, socket_handshake.cc, socket_send.cc.
#include "core/net/socket_connection.h"

#include "core/assert.h"
#include "core/net/resolver.h"

namespace pstorage {

Socket_connection::Socket_connection(Socket_network& network, Connection_handler& handler,
                                     Address address, bool is_server)
    : network_(network),
      handler_(handler),
      address_(std::move(address)),
      is_server_(is_server),
      peer_address_(address_.text()),
      socket_(network.loop_, *this) {}

void Socket_connection::start_connect() {
  deadline_ = network_.clock_.now() + network_.options_.connect_timeout;
  if (auto const numeric = numeric_endpoint(address_); numeric) {
    endpoints_ = {numeric.value()};
    // From the loop: the caller does not have the id yet.
    network_.loop_.post([self = shared_from_this()] { self->try_next_endpoint({}); });
    return;
  }
  network_.resolver_->resolve(
      address_, [self = shared_from_this()](Outcome<std::vector<Endpoint>> endpoints) {
        self->resolved(std::move(endpoints));
      });
}

void Socket_connection::resolved(Outcome<std::vector<Endpoint>> endpoints) {
  if (stage_ != Stage::connecting) return;
  if (!endpoints) return fail(endpoints.error());
  endpoints_ = std::move(endpoints).value();
  try_next_endpoint({});
}

void Socket_connection::try_next_endpoint(std::error_code last) {
  while (stage_ == Stage::connecting) {
    if (next_endpoint_ == endpoints_.size())
      return fail(failure(last ? last : make_error_code(Errc::unavailable),
                          connect_failure_text(address_.text(), last)));
    auto socket = begin_connect(endpoints_[next_endpoint_++]);
    if (!socket) {
      last = socket.error();
      continue;
    }
    socket_.open(std::move(socket).value());
    socket_.wait_writable();
    return;
  }
}

void Socket_connection::connect_finished(std::error_code error) {
  if (error) return try_next_endpoint(error);
  begin_handshake();
}

void Socket_connection::on_ready(Readiness ready) {
  auto const self = shared_from_this();
  peer_ended_ = peer_ended_ || ready.ended;
  if (stage_ == Stage::connecting) {
    if (ready.writable) connect_finished(socket_error(socket_.fd()));
    return;
  }
  if (ready.writable) {
    waiting_writable_ = false;
    if (stage_ < Stage::failing) mark_dirty();  // with the others at the end of the turn
  }
  if (ready.readable) receive();
}

void Socket_connection::start_accepted(File_descriptor fd) {
  tune_socket(fd.get());
  peer_address_ = peer_text(fd.get(), address_.unix_path);
  socket_.open(std::move(fd));
  begin_handshake();
}

void Socket_connection::begin_handshake() {
  stage_ = Stage::handshake;
  deadline_ = network_.clock_.now() + network_.options_.handshake_timeout;
  tls_ = std::make_unique<Tls_channel>(network_.tls(), is_server_);
  if (!is_server_ && !advance_handshake()) return;
  socket_.again();
}

void Socket_connection::check_deadline(Time_point now) {
  if (stage_ == Stage::open || stage_ >= Stage::failing || now < deadline_) return;
  if (stage_ == Stage::connecting) {
    // Another address of the same name may answer; each gets the whole time.
    deadline_ = now + network_.options_.connect_timeout;
    if (endpoints_.empty()) next_endpoint_ = 0;
    return try_next_endpoint(std::make_error_code(std::errc::timed_out));
  }
  if (stage_ == Stage::draining) return close();
  fail(failure(Errc::timed_out, "no handshake with " + peer_address_ + " within " +
                                    std::to_string(network_.options_.handshake_timeout /
                                                   std::chrono::milliseconds(1)) +
                                    " ms: does a pstorage program run there?"));
}

void Socket_connection::close() {
  if (stage_ == Stage::dead) return;
  stage_ = Stage::dead;
  socket_.close();
  queue_.clear();
  end_sharing();
  network_.remove(id_);
}

void Socket_connection::fail(Failure why) {
  if (stage_ == Stage::draining) return close();
  if (!is_live()) return;
  if (is_server_ && !known_to_handler_) {
    network_.note_refused(peer_address_, why.text);
    return close();
  }
  stage_ = Stage::failing;
  socket_.close();
  queue_.clear();
  end_sharing();
  network_.loop_.post([self = shared_from_this(), why = std::move(why)] {
    if (self->stage_ != Stage::failing) return;  // closed by its owner meanwhile
    self->close();
    self->handler_.on_disconnected(self->id_, why);
  });
}

}  // namespace pstorage
