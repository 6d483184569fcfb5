// Socket_connection: from a connected socket to an open connection.
#include <cstring>

#include "core/auth/salt.h"
#include "core/net/handshake.h"
#include "core/net/socket_connection.h"

namespace pstorage {

bool Socket_connection::advance_handshake() {
  auto const status = tls_->handshake();
  mark_dirty();
  if (status == Tls_channel::Status::want_input) return true;
  if (status == Tls_channel::Status::progress) {
    tls_complete_ = true;
    if (!is_server_) send_hello();
    return is_live();
  }
  // Never more than this: neither the log of one side nor the answer of the other may tell which of
  // name and password was right.
  if (is_server_)
    refuse(failure(Errc::wrong_key, "authentication failed"));
  else
    fail(failure(Errc::wrong_key, "authentication failed at " + peer_address_ +
                                      ": the password or the cluster name is wrong"));
  return false;
}

bool Socket_connection::write_tls(Bytes plain) {
  if (tls_->write(plain) == Tls_channel::Status::progress) {
    mark_dirty();
    return true;
  }
  fail(failure(Errc::unavailable, "TLS with " + peer_address_ + " ended: " + tls_->failure_text()));
  return false;
}

void Socket_connection::send_hello() {
  auto identity = network_.options_.identity;
  identity.role = role_;
  auto const hello = make_hello(identity, network_.options_.protocol);
  write_tls(as_bytes(frame_control(hello, false)));
}

bool Socket_connection::take_hello_bytes(Bytes bytes) {
  hello_bytes_.insert(hello_bytes_.end(), bytes.begin(), bytes.end());
  if (hello_bytes_.size() < header_bytes) return true;
  auto const framed = decode_header(hello_bytes_.data());
  bool const sane = framed && framed.value().header.operation == Operation::control &&
                    framed.value().header.is_reply != is_server_ &&
                    framed.value().data_bytes == 0 &&
                    framed.value().meta_bytes <= unauthenticated_bytes_max;
  std::size_t const total = sane ? header_bytes + framed.value().meta_bytes : 0;
  // Nobody may say more before he has been answered.
  if (!sane || hello_bytes_.size() > total) {
    fail(failure(Errc::bad_request, "malformed hello from " + peer_address_));
    return false;
  }
  if (hello_bytes_.size() < total) return true;
  auto const message = std::move(hello_bytes_);
  hello_bytes_ = {};
  return take_hello(Bytes(message).subspan(header_bytes));
}

bool Socket_connection::take_hello(Bytes message) {
  return is_server_ ? serve_hello(message) : accept_hello_reply(message);
}

bool Socket_connection::serve_hello(Bytes message) {
  proto::Hello hello;
  if (!hello.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
    refuse(failure(Errc::bad_request, "malformed hello"));
    return false;
  }
  auto const reply = answer_hello(network_.options_.identity, network_.options_.protocol, hello);
  if (!write_tls(as_bytes(frame_control(reply, true)))) return false;
  if (reply.status() != 0) {
    refuse(failure(static_cast<Errc>(reply.status()), reply.text()));
    return false;
  }
  opened(hello, reply.encrypted());
  return is_live();
}

bool Socket_connection::accept_hello_reply(Bytes message) {
  proto::Hello_reply reply;
  if (!reply.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
    fail(failure(Errc::bad_request, "malformed hello from " + peer_address_));
    return false;
  }
  auto const allowed = check_hello_reply(network_.options_.identity, network_.options_.protocol,
                                         reply, peer_address_);
  if (!allowed) {
    fail(allowed.error());
    return false;
  }
  opened(reply.hello(), reply.encrypted());
  return is_live();
}

void Socket_connection::opened(proto::Hello const& hello, bool encrypted) {
  stage_ = Stage::open;
  encrypted_ = encrypted;
  shares_ = address_.is_unix() && !encrypted;
  known_to_handler_ = true;
  if (!queue_.empty()) mark_dirty();  // sent while the connection was being made
  network_.authenticated(*this);
  auto info = peer_info_of(hello);
  info.address = peer_address_;
  info.is_local = peer_is_local(socket_.fd());
  handler_.on_connected(id_, info);
}

void Socket_connection::refuse(Failure const& why) {
  network_.note_refused(peer_address_, why.text);
  // The reason is on its way. Closing now would reset the connection and could destroy it before
  // the peer has read it; so the peer hangs up first, or the deadline does it.
  stage_ = Stage::draining;
  deadline_ = network_.clock_.now() + std::chrono::seconds(1);
  mark_dirty();
}

bool Socket_connection::take_salt_request(Bytes bytes, bool& waiting) {
  auto const compared = std::min(bytes.size(), salt_magic.size());
  if (as_text(bytes.first(compared)) != salt_magic.substr(0, compared)) return false;
  waiting = compared < salt_magic.size();
  if (waiting) return false;
  auto const& identity = network_.options_.identity;
  auto const answer = encode_salt_answer(identity.key.salt, identity.cluster);
  plain_out_.insert(plain_out_.end(), answer.begin(), answer.end());
  tls_.reset();
  stage_ = Stage::draining;
  deadline_ = network_.clock_.now() + std::chrono::seconds(1);
  mark_dirty();
  return true;
}

}  // namespace pstorage
