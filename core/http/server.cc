#include "core/http/server.h"

#include <algorithm>
#include <array>

#include "core/net/socket.h"
#include "core/net/stream_acceptor.h"
#include "core/runtime/implementation.h"

namespace pstorage::http {
namespace {

std::string head_of(Answer const& answer, bool keeps_alive) {
  std::string head = "HTTP/1.1 " + std::to_string(answer.status) + " ";
  head.append(reason_of(answer.status));
  head += "\r\nContent-Type: " + answer.content_type +
          "\r\nContent-Length: " + std::to_string(answer.body.size()) +
          "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: " +
          (keeps_alive ? "keep-alive" : "close") + "\r\n";
  for (auto const& [name, value] : answer.headers) head += name + ": " + value + "\r\n";
  return head + "\r\n";
}

Answer refusal(unsigned status, std::string const& why) {
  Answer answer;
  answer.status = status;
  answer.body = why + "\n";
  if (status == 405) answer.headers.emplace_back("Allow", "GET, HEAD");
  return answer;
}

}  // namespace

bool is_loopback(std::string const& host) {
  // A name that only begins like the number may lead here by its owner's will.
  bool const is_number = host.find_first_not_of("0123456789.") == std::string::npos;
  return host == "localhost" || host == "::1" || host == "[::1]" || host.empty() ||
         (is_number && host.starts_with("127."));
}

class Server::Connection final : public std::enable_shared_from_this<Connection>,
                                 private Event_handler {
 public:
  Connection(Server& server, File_descriptor fd)
      : server_(server), socket_(server.runtime_.implementation().loop(), *this) {
    touch();
    socket_.open(std::move(fd));
  }

  bool is_closed() const { return !socket_.is_open(); }
  Time_point idle_since() const { return touched_; }
  void close() { socket_.close(); }

  void check_deadlines(Time_point now) {
    auto const& limits = server_.limits_;
    auto const limit = !output_.empty() ? limits.write_timeout
                       : has_begun_     ? limits.head_timeout
                                        : limits.idle_timeout;
    if (!is_answering_ && now - touched_ > limit) close();
  }

 private:
  static constexpr int reads_a_turn = 4;

  void touch() { touched_ = server_.runtime_.clock().now(); }

  void on_ready(Readiness ready) override {
    auto const self = shared_from_this();
    if (ready.writable) write();
    if (ready.ended) has_ended_ = true;
    if (ready.readable) receive();
  }

  void receive() {
    // While an answer is under way nothing is read: the kernel's buffer is the limit.
    for (int i = 0; i < reads_a_turn && socket_.is_open(); ++i) {
      if (parser_.has_bytes() && !is_busy()) take({});  // came with the request before
      if (is_busy()) return;
      std::array<std::byte, 4096> bytes;
      Mutable_bytes const part(bytes);
      auto const got = receive_some(socket_.fd(), {&part, 1});
      if (got.closed || got.error) return close();
      if (got.bytes == 0) return;
      if (is_hanging_up_) continue;
      if (!std::exchange(has_begun_, true)) touch();  // the time for the head begins
      take({reinterpret_cast<char const*>(bytes.data()), got.bytes});
      if (got.drained && !has_ended_) return;
    }
    if (socket_.is_open()) socket_.again();
  }

  bool is_busy() const { return is_answering_ || !output_.empty() || is_closed(); }

  void take(std::string_view bytes) {
    Request request;
    switch (parser_.feed(bytes, request)) {
      case Request_parser::State::more:
        return;
      case Request_parser::State::refused:
        keeps_alive_ = false;
        return send(refusal(parser_.status(),
                            "this server answers GET and HEAD only, without "
                            "bodies"));
      case Request_parser::State::complete:
        break;
    }
    has_begun_ = false;
    keeps_alive_ = request.keeps_alive && !has_ended_;
    is_head_ = request.is_head;
    if (server_.is_loopback_ && !is_loopback(request.host))
      return send(refusal(421, "ask for a loopback address by its number or as localhost"));
    is_answering_ = true;
    server_.handler_(request, [weak = weak_from_this()](Answer answer) {
      auto const self = weak.lock();
      if (!self || self->is_closed()) return;
      self->is_answering_ = false;
      self->send(answer);
    });
  }

  void send(Answer const& answer) {
    touch();
    output_.push({}, Slice::copy_of(as_bytes(head_of(answer, keeps_alive_))));
    if (!is_head_ && !answer.body.empty()) output_.push({}, Slice::copy_of(as_bytes(answer.body)));
    write();
  }

  void write() {
    if (is_closed() || output_.empty()) return;
    if (send_queued(socket_.fd(), output_)) return close();
    if (!output_.empty()) return socket_.wait_writable();
    touch();
    if (!keeps_alive_) return hang_up();
    socket_.again();  // the next request may be there
  }

  // What the client has sent and nobody reads would make the kernel reset the connection, and the
  // client lose the answer: it has a moment to hang up first.
  void hang_up() {
    ::shutdown(socket_.fd(), SHUT_WR);
    is_answering_ = false;
    std::array<std::byte, 4096> bytes;
    Mutable_bytes const part(bytes);
    for (int i = 0; i < 16; ++i) {
      auto const got = receive_some(socket_.fd(), {&part, 1});
      if (got.closed || got.error) return close();
      if (got.bytes == 0) break;
    }
    is_hanging_up_ = true;
  }

  Server& server_;
  Watch socket_;
  Request_parser parser_;
  Send_queue output_;
  Time_point touched_{};
  bool has_begun_ = false;     // of a head something is there
  bool is_answering_ = false;  // the handler has the request
  bool is_head_ = false;
  bool keeps_alive_ = true;
  bool has_ended_ = false;  // the client sends no more
  bool is_hanging_up_ = false;
};

Server::Server(Runtime& runtime, Handler handler, Server_limits limits)
    : runtime_(runtime), handler_(std::move(handler)), limits_(limits) {
  runtime_.add_ticker(*this);
}

Server::~Server() {
  runtime_.remove_ticker(*this);
  if (acceptor_) acceptor_->stop();
  for (auto const& connection : connections_) connection->close();
}

Outcome<Address> Server::listen(Address const& at) {
  Address real;
  PS_TRY(auto fd, listen_at(at, real));
  is_loopback_ = at.is_unix() || is_loopback(at.host);
  acceptor_ = std::make_shared<Stream_acceptor>(
      runtime_.implementation().loop(), real, std::move(fd),
      [this](File_descriptor socket) { accepted(std::move(socket)); },
      [this](std::error_code error) {
        runtime_.log().warn("cannot accept an HTTP client", {{"reason", error.message()}});
      });
  acceptor_->start();
  return real;
}

void Server::accepted(File_descriptor fd) {
  std::erase_if(connections_, [](auto const& one) { return one->is_closed(); });
  if (connections_.size() >= limits_.connections_max) {
    auto const oldest = std::min_element(
        connections_.begin(), connections_.end(),
        [](auto const& a, auto const& b) { return a->idle_since() < b->idle_since(); });
    (*oldest)->close();
    connections_.erase(oldest);
  }
  tune_socket(fd.get());
  connections_.push_back(std::make_shared<Connection>(*this, std::move(fd)));
}

void Server::on_tick() {
  auto const now = runtime_.clock().now();
  for (auto const& connection : connections_)
    if (!connection->is_closed()) connection->check_deadlines(now);
  std::erase_if(connections_, [](auto const& one) { return one->is_closed(); });
  if (acceptor_) acceptor_->resume();
}

}  // namespace pstorage::http
