#include "blockdev/nbd_server.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "core/net/event_loop.h"
#include "core/net/socket.h"
#include "core/net/stream_acceptor.h"
#include "core/runtime/implementation.h"

namespace pstorage::nbd {
namespace {

// A client that never stops sending must not keep the others waiting.
constexpr int reads_a_turn = 16;
constexpr std::size_t secret_read_bytes = 64u << 10;
// Encrypted and not yet sent; the rest waits in clear, where it is counted.
constexpr std::size_t secret_output_max = 1u << 20;

/// The address of a TCP client; nothing for a unix socket.
std::optional<Host_bytes> tcp_peer(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return std::nullopt;
  Host_bytes host{};
  if (storage.ss_family == AF_INET6) {
    auto const& v6 = reinterpret_cast<sockaddr_in6 const&>(storage);
    std::memcpy(host.data(), &v6.sin6_addr, host.size());
    return host;
  }
  if (storage.ss_family != AF_INET) return std::nullopt;
  auto const& v4 = reinterpret_cast<sockaddr_in const&>(storage);
  host[10] = host[11] = 0xFF;
  std::memcpy(host.data() + 12, &v4.sin_addr, 4);
  return host;
}

}  // namespace

/// One client's socket. The server holds a shared_ptr until the session is idle.
class Nbd_server::Connection final : public Session_events,
                                     private Event_handler,
                                     public std::enable_shared_from_this<Connection> {
 public:
  Connection(Nbd_server& server, File_descriptor fd, std::string const& peer,
             Session_limits const& limits)
      : server_(server),
        peer_(peer),
        socket_(server.runtime_.implementation().loop(), *this),
        session_(server.exports_, server.runtime_.clock(), server.runtime_.log(), *this, peer,
                 limits) {
    socket_.open(std::move(fd));
  }

  Nbd_session& session() { return session_; }
  bool is_finished() const { return closed_ && session_.is_idle(); }

  void on_session_changed() override { mark_dirty(); }

  void mark_dirty() {
    if (std::exchange(dirty_, true)) return;
    server_.mark_dirty(*this);
  }

  /// Writes what the session has to say, then takes input if it may.
  void flush() {
    dirty_ = false;
    if (closed_) return;
    if (!waiting_writable_) write();
    if (closed_) return;
    if (session_.is_over() && session_.output().empty() && secret_.empty()) return hang_up();
    if (session_.wants_tls() && session_.output().empty()) {
      tls_ = std::make_unique<Tls_stream>(*server_.options_.tls);
      session_.tls_started();
    }
    go_on();
  }

  /// What a client still sends (its end of TLS) must not meet a closed socket: it would be told of
  /// an error.
  void hang_up() {
    if (std::exchange(draining_, true)) return;
    hang_up_by_ = server_.runtime_.clock().now() + std::chrono::seconds(2);
    ::shutdown(socket_.fd(), SHUT_WR);
    if (readable_) drain();
  }
  void check_deadlines(Time_point now) {
    session_.check_deadline(now);
    if (draining_ && now >= hang_up_by_) close();
  }

  void close() {
    if (std::exchange(closed_, true)) return;
    socket_.close();
    session_.disconnected();
  }

 private:
  void on_ready(Readiness ready) override {
    auto const self = shared_from_this();
    peer_ended_ = peer_ended_ || ready.ended;
    readable_ = readable_ || ready.readable;
    if (ready.writable) {
      waiting_writable_ = false;
      mark_dirty();
    }
    if (!readable_ || closed_) return;
    draining_ ? drain() : receive();
  }

  void drain() {
    for (int i = 0; i < reads_a_turn; ++i) {
      std::array<std::byte, 4096> bytes;
      Mutable_bytes const part(bytes);
      auto const got = receive_some(socket_.fd(), {&part, 1});
      if (got.closed || got.error) return close();
      if (got.bytes == 0) {
        readable_ = false;
        return;
      }
    }
    socket_.again();
  }

  void receive() {
    if (tls_) return receive_secret();
    for (int i = 0; i < reads_a_turn && session_.wants_input(); ++i) {
      auto const buffers = session_.prepare();
      auto const got = receive_some(socket_.fd(), {buffers.parts.data(), buffers.count});
      if (got.closed || got.error) return close();  // the client has hung up, in its way
      if (got.bytes > 0) session_.received(got.bytes);
      if (got.bytes == 0 || (got.drained && !peer_ended_)) {
        readable_ = false;
        return;
      }
    }
    go_on();
  }

  void receive_secret() {
    for (int i = 0; i < reads_a_turn; ++i) {
      if (!decrypt()) return close();
      if (!session_.wants_input()) break;
      std::array<std::byte, secret_read_bytes> bytes;
      Mutable_bytes const part(bytes);
      auto const got = receive_some(socket_.fd(), {&part, 1});
      if (got.closed || got.error) return close();
      tls_->feed(Bytes(bytes).first(got.bytes));
      if (got.bytes == 0 || (got.drained && !peer_ended_)) {
        readable_ = false;
        if (!decrypt()) return close();
        break;
      }
    }
    mark_dirty();  // the handshake has something to say, too
    go_on();
  }

  /// Hands on what can be decrypted, as far as the session takes it. False: the client is gone.
  bool decrypt() {
    is_decrypted_ = true;
    while (session_.wants_input()) {
      auto const buffers = session_.prepare();
      auto const got = tls_->read(buffers.parts[0]);
      if (!got && got.error() != Errc::closed)
        server_.runtime_.log().warn("TLS with an NBD client failed",
                                    {{"peer", peer_}, {"reason", tls_->why()}});
      if (!got) return false;
      if (got.value() == 0) return true;
      session_.received(got.value());
    }
    is_decrypted_ = false;
    return true;
  }

  // What is left in the socket is not told of again.
  void go_on() {
    if ((readable_ || !is_decrypted_) && session_.wants_input()) socket_.again();
  }

  void write_secret() {
    auto& queue = session_.output();
    while (tls_->is_ready() && !queue.empty() && secret_.bytes() < secret_output_max) {
      std::array<iovec, 16> parts;
      auto const count = queue.gather(parts);
      std::size_t taken = 0;
      for (std::size_t i = 0; i < count; ++i) {
        Bytes const plain(static_cast<std::byte const*>(parts[i].iov_base), parts[i].iov_len);
        if (!tls_->write(plain)) return close();
        taken += plain.size();
      }
      queue.consume(taken);
      take_encrypted();
    }
    take_encrypted();
    if (!secret_.empty() && send_queued(socket_.fd(), secret_)) return close();
    if (!secret_.empty() || !queue.empty()) {
      waiting_writable_ = true;
      socket_.wait_writable();
    }
    session_.sent();
  }

  void take_encrypted() {
    auto const bytes = tls_->output();
    if (bytes.empty()) return;
    secret_.push({}, Slice::copy_of(bytes));
    tls_->consume_output(bytes.size());
  }

  void write() {
    if (tls_) return write_secret();
    auto& queue = session_.output();
    if (queue.empty()) return;
    if (send_queued(socket_.fd(), queue)) return close();
    if (!queue.empty()) {
      waiting_writable_ = true;
      socket_.wait_writable();
    }
    session_.sent();
  }

  Nbd_server& server_;
  std::string const peer_;
  Watch socket_;
  Nbd_session session_;
  std::unique_ptr<Tls_stream> tls_;
  Send_queue secret_;         // encrypted
  bool is_decrypted_ = true;  // nothing waits inside tls_
  bool dirty_ = false;
  bool readable_ = false;    // there may be something in the socket
  bool peer_ended_ = false;  // the end is in there, too, and has to be found
  bool waiting_writable_ = false;
  bool draining_ = false;  // everything is said
  Time_point hang_up_by_{};
  bool closed_ = false;
};

Nbd_server::Nbd_server(Runtime& runtime, Volume_provider& provider, Server_options options)
    : runtime_(runtime),
      options_(std::move(options)),
      exports_(provider, runtime.clock(), runtime.log(), options_.volumes) {
  runtime_.add_ticker(*this);
  runtime_.implementation().add_flusher(*this);
}

Nbd_server::~Nbd_server() {
  for (auto const& acceptor : acceptors_) acceptor->stop();
  for (auto const& connection : connections_) connection->close();
  // Nothing calls back any more: the volumes go without answers.
  exports_.abandon_all();
  for (auto const& connection : connections_) connection->session().abandon();
  runtime_.remove_ticker(*this);
  runtime_.implementation().remove_flusher(*this);
}

void Nbd_server::open_volumes(std::function<void(Outcome<void>)> done) {
  exports_.open_named(std::move(done));
}

Outcome<Address> Nbd_server::listen(Address const& at) {
  Address real;
  PS_TRY(auto fd, listen_at(at, real));
  accept_at(real, std::move(fd));
  return real;
}

Outcome<void> Nbd_server::adopt(int listener) {
  int listens = 0;
  socklen_t size = sizeof listens;
  bool const is_listener =
      ::getsockopt(listener, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens != 0;
  if (!is_listener || ::fcntl(listener, F_SETFL, O_NONBLOCK) != 0 ||
      ::fcntl(listener, F_SETFD, FD_CLOEXEC) != 0)
    return failure(Errc::bad_request, "descriptor " + std::to_string(listener) +
                                          " of LISTEN_FDS is no listening socket");
  Address named;  // without the path: whoever made the file removes it
  named.host = "LISTEN_FDS:" + std::to_string(listener);
  accept_at(named, File_descriptor(listener));
  return success();
}

void Nbd_server::accept_at(Address const& at, File_descriptor fd) {
  auto acceptor = std::make_shared<Stream_acceptor>(
      runtime_.implementation().loop(), at, std::move(fd),
      [this, at](File_descriptor socket) { accepted(std::move(socket), at); },
      [this](std::error_code error) {
        runtime_.log().warn("cannot accept an NBD client", {{"reason", error.message()}});
      });
  acceptor->start();
  acceptors_.push_back(std::move(acceptor));
}

void Nbd_server::refuse(std::string const& why, std::string const& peer) {
  std::uint64_t suppressed = 0;
  if (refusals_.allow(runtime_.clock().now(), suppressed))
    runtime_.log().warn("refused an NBD client", {{"peer", peer}, {"reason", why}});
}

void Nbd_server::accepted(File_descriptor fd, Address const& at) {
  auto const host = tcp_peer(fd.get());
  auto const peer = peer_text(fd.get(), host           ? std::string()
                                        : at.is_unix() ? at.unix_path
                                                       : at.host);
  if (host && !options_.allow.allows(*host)) return refuse("its address is not allowed", peer);
  if (connections_.size() >= options_.connections_max) return refuse("too many connections", peer);
  tune_socket(fd.get());
  auto limits = options_.session;
  limits.tls = !options_.tls                   ? Session_limits::Tls::none
               : options_.requires_tls && host ? Session_limits::Tls::required
                                               : Session_limits::Tls::optional;
  connections_.push_back(std::make_shared<Connection>(*this, std::move(fd), peer, limits));
  connections_.back()->mark_dirty();
}

void Nbd_server::mark_dirty(Connection& connection) {
  dirty_.push_back(connection.shared_from_this());
}

void Nbd_server::flush_turn() {
  // Flushing may make a connection dirty again: then the next turn has something to do.
  std::swap(dirty_, flushing_);
  for (auto const& connection : flushing_) connection->flush();
  bool const any = !flushing_.empty();
  flushing_.clear();
  if (any) std::erase_if(connections_, [](auto const& c) { return c->is_finished(); });
  if (stopping_) check_stopped();
  if (!dirty_.empty()) runtime_.post([] {});
}

void Nbd_server::on_tick() {
  exports_.on_tick();
  static constexpr unsigned ticks_a_check = 100;
  if (++ticks_ % ticks_a_check != 0) return;
  auto const now = runtime_.clock().now();
  for (auto const& connection : connections_) connection->check_deadlines(now);
  for (auto const& acceptor : acceptors_) acceptor->resume();
  std::erase_if(connections_, [](auto const& c) { return c->is_finished(); });
}

void Nbd_server::stop(std::function<void()> done) {
  for (auto const& acceptor : acceptors_) acceptor->stop();
  stopping_ = true;
  stopped_ = std::move(done);
  for (auto const& connection : connections_) connection->session().stop();
}

void Nbd_server::check_stopped() {
  if (!connections_.empty() || !stopped_) return;
  exports_.close_all(std::exchange(stopped_, nullptr));
}

}  // namespace pstorage::nbd
