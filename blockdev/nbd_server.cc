#include "blockdev/nbd_server.h"

#include <algorithm>

#include "core/net/event_loop.h"
#include "core/net/socket.h"
#include "core/net/stream_acceptor.h"
#include "core/runtime/implementation.h"

namespace pstorage::nbd {
namespace {

// A client that never stops sending must not keep the others waiting.
constexpr int reads_a_turn = 16;

}  // namespace

/// One client's socket. The server holds a shared_ptr until the session is idle.
class Nbd_server::Connection final : public Session_events,
                                     private Event_handler,
                                     public std::enable_shared_from_this<Connection> {
 public:
  Connection(Nbd_server& server, File_descriptor fd, std::string const& peer)
      : server_(server),
        socket_(server.runtime_.implementation().loop(), *this),
        session_(server.exports_, server.runtime_.clock(), server.runtime_.log(), *this, peer,
                 server.options_.session) {
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
    if (session_.is_over() && session_.output().empty()) return close();
    go_on();
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
    if (readable_) receive();
  }

  void receive() {
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

  // What is left in the socket is not told of again.
  void go_on() {
    if (readable_ && session_.wants_input()) socket_.again();
  }

  void write() {
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
  Watch socket_;
  Nbd_session session_;
  bool dirty_ = false;
  bool readable_ = false;    // there may be something in the socket
  bool peer_ended_ = false;  // the end is in there, too, and has to be found
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
  auto acceptor = std::make_shared<Stream_acceptor>(
      runtime_.implementation().loop(), real, std::move(fd),
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
