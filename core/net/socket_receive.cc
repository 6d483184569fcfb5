// Socket_connection: from the socket to the handler.
#include <cstring>

#include "core/net/socket_connection.h"

namespace pstorage {

Received Socket_connection::receive_once() {
  if (in_tls()) {
    if (raw_.empty()) raw_.resize(raw_bytes_max);
    Mutable_bytes const rest(raw_.data() + raw_filled_, raw_.size() - raw_filled_);
    return receive_some(socket_.fd(), {&rest, 1});
  }
  auto const buffers = reader_.prepare();
  return receive_some(socket_.fd(), {buffers.parts.data(), buffers.count},
                      shares_ ? &passed_ : nullptr);
}

void Socket_connection::receive() {
  for (int i = 0; i < reads_a_turn; ++i) {
    auto const got = receive_once();
    if (got.closed || got.error) return receive_failed(got.closed, got.error);
    if (got.bytes > 0) received(got.bytes);
    // Nothing tells of the end again, so once it is there it has to be found.
    if (stage_ >= Stage::failing || (got.drained && !peer_ended_)) return;
    if (got.bytes == 0) return;
  }
  socket_.again();
}

void Socket_connection::received(std::size_t bytes) {
  if (stage_ == Stage::draining) {
    discard(bytes);
  } else if (in_tls()) {
    raw_filled_ += bytes;
    take_raw();
  } else {
    reader_.commit(bytes);
    deliver();
  }
}

void Socket_connection::receive_failed(bool closed, std::error_code error) {
  std::string const what = closed ? "connection closed by " + peer_address_
                                  : "connection to " + peer_address_ + " lost: " + error.message();
  if (stage_ == Stage::handshake)
    return fail(failure(Errc::unavailable, what + " during the handshake"));
  fail(failure(Errc::unavailable, what));
}

void Socket_connection::deliver() {
  Message message;
  while (stage_ == Stage::open) {
    auto const next = reader_.next(message);
    if (next == Frame_reader::Next::more) return;
    bool is_sane = next != Frame_reader::Next::malformed;
    if (next == Frame_reader::Next::shared) is_sane = take_shown(message);
    if (is_sane && message.header.operation == Operation::share) {
      is_sane = take_share(message.header);
    } else if (is_sane && message.header.operation == Operation::give_back) {
      is_sane = take_back(message.header);
    } else if (is_sane) {
      handler_.on_message(id_, message);  // may close this connection, or any other one
    }
    if (!is_sane)
      return fail(failure(Errc::bad_request, "malformed message from " + peer_address_));
  }
}

void Socket_connection::discard(std::size_t bytes) {
  drained_ += bytes;
  if (drained_ > drain_bytes_max) close();
}

void Socket_connection::take_raw() {
  std::size_t at = 0;
  while (is_live() && in_tls()) {
    Bytes const rest(raw_.data() + at, raw_filled_ - at);
    if (rest.empty()) break;
    if (is_server_ && !tls_begun_) {
      bool waiting = false;
      if (take_salt_request(rest, waiting)) return;
      if (waiting) break;
    }
    auto const size = tls_record_bytes(rest);
    if (!size)
      return fail(failure(Errc::bad_request, peer_address_ + " does not speak this protocol"));
    if (size.value() == 0 || size.value() > rest.size()) break;
    at += size.value();
    if (!take_record(rest.first(size.value()))) return;
  }
  if (!is_live()) return;
  if (!in_tls()) return leave_tls(Bytes(raw_.data() + at, raw_filled_ - at));
  raw_filled_ -= at;
  if (at > 0 && raw_filled_ > 0) std::memmove(raw_.data(), raw_.data() + at, raw_filled_);
}

bool Socket_connection::take_record(Bytes record) {
  tls_begun_ = true;
  tls_->feed(record);
  if (!tls_complete_ && !advance_handshake()) return false;
  return !tls_complete_ || take_plain();
}

bool Socket_connection::take_plain() {
  std::byte hello[4096];
  while (is_live() && in_tls()) {
    bool const in_handshake = stage_ == Stage::handshake;
    Mutable_bytes const to = in_handshake ? Mutable_bytes(hello) : reader_.prepare().parts[0];
    std::size_t got = 0;
    switch (tls_->read(to, got)) {
      case Tls_channel::Status::want_input:
        // The peer may have asked for new keys: that wants an answer.
        if (!tls_->output().empty()) mark_dirty();
        return true;
      case Tls_channel::Status::failed:
        fail(failure(Errc::unavailable,
                     "TLS with " + peer_address_ + " ended: " + tls_->failure_text()));
        return false;
      case Tls_channel::Status::progress:
        if (in_handshake) {
          if (!take_hello_bytes(to.first(got))) return false;
        } else {
          reader_.commit(got);
          deliver();
        }
    }
  }
  return is_live();
}

// From here on the peer speaks in clear; what arrived together with its last record does so
// already.
void Socket_connection::leave_tls(Bytes rest) {
  while (!rest.empty() && stage_ == Stage::open) {
    auto const to = reader_.prepare().parts[0];
    auto const taken = std::min(rest.size(), to.size());
    std::memcpy(to.data(), rest.data(), taken);
    rest = rest.subspan(taken);
    reader_.commit(taken);
    deliver();
  }
  raw_ = {};
  raw_filled_ = 0;
}

}  // namespace pstorage
