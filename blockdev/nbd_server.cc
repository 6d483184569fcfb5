#include "blockdev/nbd_server.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>

#include "core/net/socket.h"
#include "core/net/stream_acceptor.h"
#include "core/runtime/implementation.h"

namespace pstorage::nbd {
namespace {

constexpr std::size_t vector_elements = 512;

}  // namespace

/// One client's socket. Its completion handlers hold a shared_ptr; the server holds one until the
/// session is idle.
class Nbd_server::Connection final : public Session_events,
                                     public std::enable_shared_from_this<Connection> {
 public:
  Connection(Nbd_server& server, File_descriptor fd, std::string const& peer)
      : server_(server),
        socket_(server.runtime_.implementation().io(), fd.release()),
        session_(server.exports_, server.runtime_.clock(), server.runtime_.log(), *this, peer,
                 server.options_.session) {}

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
    if (session_.is_over() && session_.output().empty()) return close();
    if (!receiving_ && session_.wants_input()) receive();
  }

  void close() {
    if (std::exchange(closed_, true)) return;
    boost::system::error_code ignored;
    socket_.close(ignored);
    session_.disconnected();
  }

 private:
  void receive() {
    auto handler = [self = shared_from_this()](boost::system::error_code const& error,
                                               std::size_t bytes) {
      self->receiving_ = false;
      if (self->closed_) return;
      if (error) return self->close();  // the client has hung up, in its way
      self->session_.received(bytes);
    };
    receiving_ = true;
    auto const buffers = session_.prepare();
    auto const& parts = buffers.parts;
    if (buffers.count == 1) {
      socket_.async_read_some(boost::asio::buffer(parts[0].data(), parts[0].size()),
                              std::move(handler));
      return;
    }
    std::array<boost::asio::mutable_buffer, 2> const both{
        boost::asio::buffer(parts[0].data(), parts[0].size()),
        boost::asio::buffer(parts[1].data(), parts[1].size())};
    socket_.async_read_some(both, std::move(handler));
  }

  void write() {
    auto& queue = session_.output();
    if (queue.empty()) return;
    std::array<iovec, vector_elements> vector;
    while (!queue.empty()) {
      msghdr header{};
      header.msg_iov = vector.data();
      header.msg_iovlen = queue.gather(vector);
      auto const sent = ::sendmsg(socket_.native_handle(), &header, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return close();
      if (sent < 0) {
        wait_writable();
        break;
      }
      queue.consume(static_cast<std::size_t>(sent));
    }
    session_.sent();
  }

  void wait_writable() {
    waiting_writable_ = true;
    socket_.async_wait(boost::asio::posix::stream_descriptor::wait_write,
                       [self = shared_from_this()](boost::system::error_code const& error) {
                         self->waiting_writable_ = false;
                         if (!error && !self->closed_) self->mark_dirty();
                       });
  }

  Nbd_server& server_;
  boost::asio::posix::stream_descriptor socket_;
  Nbd_session session_;
  bool dirty_ = false;
  bool receiving_ = false;
  bool waiting_writable_ = false;
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
  // Completion handlers in the loop may keep connections longer than this server: they must not
  // know the volumes any more.
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
  auto acceptor = std::make_shared<Stream_acceptor>(
      runtime_.implementation().io(), real, std::move(fd),
      [this, real](File_descriptor socket) { accepted(std::move(socket), real); },
      [this](std::error_code error) {
        runtime_.log().warn("cannot accept an NBD client", {{"reason", error.message()}});
      });
  acceptor->start();
  acceptors_.push_back(std::move(acceptor));
  return real;
}

void Nbd_server::accepted(File_descriptor fd, Address const& at) {
  auto const peer = peer_text(fd.get(), at.unix_path);
  if (connections_.size() >= options_.connections_max) {
    std::uint64_t suppressed = 0;
    if (refusals_.allow(runtime_.clock().now(), suppressed))
      runtime_.log().warn("refused an NBD client: too many connections",
                          {{"peer", peer}, {"limit", options_.connections_max}});
    return;
  }
  tune_socket(fd.get());
  connections_.push_back(std::make_shared<Connection>(*this, std::move(fd), peer));
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
  for (auto const& connection : connections_) connection->session().check_deadline(now);
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
