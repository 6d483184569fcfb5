// Socket_connection: from the queue to the socket.
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "core/net/socket_connection.h"

namespace pstorage {

void Socket_connection::mark_dirty() {
  if (dirty_) return;
  dirty_ = true;
  network_.mark_dirty(id_);
}

void Socket_connection::send(Message message) {
  if (stage_ > Stage::open) return;
  if (!show(message)) queue_.push(std::move(message));
  if (queue_.bytes() > network_.options_.queued_bytes_max)
    return fail(failure(Errc::unavailable, peer_address_ + " takes no messages: " +
                                               std::to_string(queue_.bytes() >> 20) +
                                               " MiB are waiting for it"));
  if (stage_ == Stage::open) mark_dirty();
}

void Socket_connection::flush() {
  dirty_ = false;
  if (waiting_writable_ || stage_ == Stage::connecting || stage_ >= Stage::failing) return;
  if (!plain_out_.empty()) {
    std::size_t written = 0;
    bool const all = flush_bytes(plain_out_, written);
    plain_out_.erase(plain_out_.begin(), plain_out_.begin() + static_cast<std::ptrdiff_t>(written));
    if (!all) return;
  }
  if (tls_ && !flush_tls()) return;
  if (stage_ == Stage::draining) return finish_draining();
  if (stage_ != Stage::open) return;
  if (!encrypted_) {
    tls_.reset();
    flush_queue();
    return;
  }
  while (!queue_.empty() && encrypt_some() && flush_tls()) continue;
}

bool Socket_connection::flush_bytes(Bytes bytes, std::size_t& written) {
  while (written < bytes.size()) {
    auto const sent = ::send(socket_.fd(), bytes.data() + written, bytes.size() - written,
                             MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      wait_writable();
      return false;
    }
    if (sent < 0) {
      write_failed({errno, std::generic_category()});
      return false;
    }
    written += static_cast<std::size_t>(sent);
  }
  return true;
}

bool Socket_connection::flush_tls() {
  std::size_t written = 0;
  bool const all = flush_bytes(tls_->output(), written);
  if (written > 0) tls_->consume_output(written);
  return all;
}

bool Socket_connection::encrypt_some() {
  std::array<std::byte, 16u << 10> record;
  std::array<iovec, 64> vector;
  for (std::size_t ahead = 0; ahead < encrypt_bytes_max && !queue_.empty();) {
    auto const count = queue_.gather(vector);
    std::size_t filled = 0;
    for (std::size_t i = 0; i < count && filled < record.size(); ++i) {
      auto const taken = std::min(vector[i].iov_len, record.size() - filled);
      std::memcpy(record.data() + filled, vector[i].iov_base, taken);
      filled += taken;
    }
    if (!write_tls(Bytes(record.data(), filled))) return false;
    queue_.consume(filled);
    ahead += filled;
  }
  return true;
}

bool Socket_connection::flush_queue() {
  if (auto const error = send_queued(socket_.fd(), queue_)) {
    write_failed(error);
    return false;
  }
  if (queue_.empty()) return true;
  wait_writable();
  return false;
}

void Socket_connection::wait_writable() {
  waiting_writable_ = true;
  socket_.wait_writable();
}

void Socket_connection::finish_draining() {
  if (std::exchange(shut_, true)) return;
  ::shutdown(socket_.fd(), SHUT_WR);
}

void Socket_connection::write_failed(std::error_code error) {
  fail(failure(Errc::unavailable, "connection to " + peer_address_ + " lost: " + error.message()));
}

}  // namespace pstorage
