// Asio_connection: from the queue to the socket.
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "core/net/asio_connection.h"

namespace pstorage {
namespace {

constexpr std::size_t vector_elements = 512;
static_assert(vector_elements <= 1024, "more than IOV_MAX");

}  // namespace

void Asio_connection::mark_dirty() {
  if (dirty_) return;
  dirty_ = true;
  network_.mark_dirty(id_);
}

void Asio_connection::send(Message message) {
  if (stage_ > Stage::open) return;
  queue_.push(std::move(message));
  if (queue_.bytes() > network_.options_.queued_bytes_max)
    return fail(failure(Errc::unavailable, peer_address_ + " takes no messages: " +
                                               std::to_string(queue_.bytes() >> 20) +
                                               " MiB are waiting for it"));
  if (stage_ == Stage::open) mark_dirty();
}

void Asio_connection::flush() {
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

bool Asio_connection::flush_bytes(Bytes bytes, std::size_t& written) {
  while (written < bytes.size()) {
    auto const sent = ::send(socket_.native_handle(), bytes.data() + written,
                             bytes.size() - written, MSG_NOSIGNAL | MSG_DONTWAIT);
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

bool Asio_connection::flush_tls() {
  std::size_t written = 0;
  bool const all = flush_bytes(tls_->output(), written);
  if (written > 0) tls_->consume_output(written);
  return all;
}

bool Asio_connection::encrypt_some() {
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

bool Asio_connection::flush_queue() {
  std::array<iovec, vector_elements> vector;
  while (!queue_.empty()) {
    msghdr header{};
    header.msg_iov = vector.data();
    header.msg_iovlen = queue_.gather(vector);
    auto const sent = ::sendmsg(socket_.native_handle(), &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      wait_writable();
      return false;
    }
    if (sent < 0) {
      write_failed({errno, std::generic_category()});
      return false;
    }
    queue_.consume(static_cast<std::size_t>(sent));
  }
  return true;
}

void Asio_connection::wait_writable() {
  waiting_writable_ = true;
  socket_.async_wait(boost::asio::posix::stream_descriptor::wait_write,
                     [self = shared_from_this()](boost::system::error_code const& error) {
                       self->waiting_writable_ = false;
                       // With the others at the end of the turn.
                       if (!error && self->stage_ < Stage::failing) self->mark_dirty();
                     });
}

void Asio_connection::finish_draining() {
  if (std::exchange(shut_, true)) return;
  ::shutdown(socket_.native_handle(), SHUT_WR);
}

void Asio_connection::write_failed(std::error_code error) {
  fail(failure(Errc::unavailable, "connection to " + peer_address_ + " lost: " + error.message()));
}

}  // namespace pstorage
