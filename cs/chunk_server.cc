#include "cs/chunk_server.h"

#include "core/mutant.h"

namespace pstorage::cs {
namespace {

bool changes_data(Operation operation) {
  return operation == Operation::write || operation == Operation::zero ||
         operation == Operation::repair;
}

}  // namespace

Chunk_server::Chunk_server(Clock& clock, Network& network, Disk& disk, Disk& journal_disk,
                           Random& random, Log& log, Chunk_server_options options)
    : clock_(clock), network_(network), random_(random), log_(log), options_(std::move(options)) {
  // Never 0, which the clients take for "not known".
  incarnation_ = {static_cast<std::uint32_t>(random.next()) | 1u};
  options_.store.salt = options_.identity.salt;
  store_ = std::make_unique<Store>(clock, disk, journal_disk, log, options_.store);
  store_->pool().set_large_source(
      [&network](std::size_t bytes) { return network.take_payload(bytes); });
  store_->set_on_progress([this] { made_progress(); });
}

Chunk_server::~Chunk_server() = default;

Outcome<void> Chunk_server::start() {
  PS_CHECK(store_->start());
  auto const report = [this](proto::Sync_done message, std::function<void(bool)> done) {
    if (!mds_) return done(true);
    proto::Mds_request request;
    message.set_cs(options_.identity.cs.value);
    *request.mutable_sync_done() = std::move(message);
    mds_->call(std::move(request), Duration{0},
               [done](Outcome<proto::Mds_reply> const& reply) { done(reply.has_value()); });
  };
  sync_ = std::make_unique<Sync_manager>(clock_, network_, log_, *store_, pace_, options_.host,
                                         report, options_.sync);
  start_upkeep();
  return success();
}

void Chunk_server::stop(std::function<void(Errc)> done) {
  finish_turn();
  settler_.reset();
  stopping_ = true;
  deferred_.clear();
  slow_reads_.clear();
  slow_pulls_.clear();
  store_->stop(std::move(done));
}

// ---------------------------------------------------------------- connections

void Chunk_server::on_connected(Connection_id connection, Peer_info const& peer) {
  peers_[connection] = {peer.role, peer.name, 0};
  last_peer_ = nullptr;
}

void Chunk_server::on_disconnected(Connection_id connection, Failure const&) {
  peers_.erase(connection);
  last_peer_ = nullptr;
}

void Chunk_server::on_message(Connection_id connection, Message& message) {
  if (stopping_ || message.header.is_reply) return;
  if (last_peer_ == nullptr || last_connection_ != connection) {
    auto const found = peers_.find(connection);
    if (found == peers_.end()) return;
    last_connection_ = connection;
    last_peer_ = &found->second;
  }
  // What changes data keeps its order: while anything waits for room, all of it does.
  bool const change = changes_data(message.header.operation);
  if (change && must_wait(connection, message, message.data.size())) return;
  if (!turn_has_client_ && last_peer_->role == Role::client) note_client();
  dispatch(connection, last_peer_->role, message);
}

void Chunk_server::dispatch(Connection_id connection, Role role, Message& message) {
  bool const is_client = role == Role::client || role == Role::tool;
  switch (message.header.operation) {
    case Operation::write:
      if (is_client) return handle_write(connection, message);
      break;
    case Operation::read:
      if (is_client) return handle_read(connection, role, message);
      break;
    case Operation::zero:
      if (is_client) return handle_zero(connection, message);
      break;
    case Operation::flush:
      if (is_client) return handle_flush(connection, message);
      break;
    case Operation::repair:
      if (is_client) return handle_repair(connection, message);
      break;
    case Operation::table:
      if (is_client || role == Role::cs) return handle_read(connection, role, message);
      break;
    case Operation::pull:
      if (role == Role::cs && must_wait_for_pace(connection, message)) return;
      if (role == Role::cs) return handle_read(connection, role, message);
      break;
    case Operation::control:
      return handle_control(connection, role, message);
    case Operation::share:
    case Operation::give_back:
      break;  // the network's own
  }
  answer(connection, message.header, Errc::refused);
}

// ---------------------------------------------------------------- waiting for room

bool Chunk_server::must_wait(Connection_id connection, Message& message, std::size_t bytes) {
  if (bytes > store_->request_bytes_max()) return false;  // will be refused
  if (deferred_.empty() && store_->has_room(bytes)) return false;
  defer(connection, message);
  return true;
}

void Chunk_server::defer(Connection_id connection, Message& message) {
  std::size_t const bytes = sizeof(Deferred) + message.data.size() + message.meta.size();
  auto const peer = peers_.find(connection);
  if (peer == peers_.end()) return;
  if (deferred_bytes_ + bytes > options_.deferred_bytes_max) {
    log_.warn("a client keeps too much under way; its connection is closed",
              {{"client", peer->second.name}});
    network_.close(connection);
    return on_disconnected(connection, failure(Errc::too_large, ""));
  }
  deferred_bytes_ += bytes;
  deferred_.push_back({connection, std::move(message)});
}

void Chunk_server::retry_deferred() {
  // Each once: a request for more room than its turn offers goes to the end again.
  for (std::size_t left = deferred_.size(); left != 0 && !stopping_; --left) {
    Message& front = deferred_.front().message;
    if (!store_->has_room(front.data.size())) return;
    Deferred next = std::move(deferred_.front());
    deferred_.pop_front();
    deferred_bytes_ -= sizeof(Deferred) + next.message.data.size() + next.message.meta.size();
    auto const peer = peers_.find(next.connection);
    if (peer != peers_.end()) dispatch(next.connection, peer->second.role, next.message);
  }
}

void Chunk_server::made_progress() {
  if (stopping_) return;
  if (deferred_.empty()) return;
  retry_deferred();
  finish_turn();
}

// ---------------------------------------------------------------- answers

void Chunk_server::answer(Connection_id connection, Header const& request, Errc status) {
  Message reply;
  reply.header = request;
  reply.header.is_reply = true;
  reply.header.status = status;
  reply.header.incarnation = incarnation_;
  network_.send(connection, std::move(reply));
}

void Chunk_server::acknowledge(Connection_id connection, Header const& request, Chunk const& chunk,
                               Store::Accepted accepted) {
  if (PS_MUTANT(acknowledge_before_the_journal)) return answer(connection, request, Errc::ok);
  // In the order of stamps: what a writer has been answered for a chunk has no gap, so that one
  // stamp can tell it, when this server comes back, up to where everything is there.
  if (accepted.large || chunk.large_lsn > store_->large_done()) {
    large_acks_.push_back({connection, request, accepted.lsn});
  } else {
    acks_.push_back({connection, request, accepted.lsn});
  }
}

void Chunk_server::answer_large() {
  bool const failed = store_->is_read_only();
  Lsn const done = store_->large_done();
  while (!large_acks_.empty() && (failed || large_acks_.front().lsn <= done)) {
    Ack const& ack = large_acks_.front();
    answer(ack.connection, ack.header, failed ? Errc::read_only : Errc::ok);
    large_acks_.pop_front();
  }
}

void Chunk_server::finish_turn() {
  Errc const status = store_->end_turn();
  for (Ack const& ack : acks_) answer(ack.connection, ack.header, status);
  acks_.clear();
  answer_large();
  for (Control_reply& control : control_replies_) {
    if (status != Errc::ok) control.reply.set_status(static_cast<std::uint32_t>(status));
    send_control(control.connection, control.header, control.reply);
  }
  control_replies_.clear();
}

void Chunk_server::on_turn_end() {
  if (!stopping_) finish_turn();
  end_measured_turn();
}

void Chunk_server::on_tick() {
  ++ticks_;
  if (store_->waiting() != 0) ++ticks_waiting_;
  finish_turn();
  store_->on_tick();
  if (stopping_) return;
  made_progress();
  for (std::size_t i = slow_reads_.size(); i != 0; --i) {
    Deferred next = std::move(slow_reads_.front());
    slow_reads_.pop_front();
    auto const peer = peers_.find(next.connection);
    if (peer != peers_.end()) dispatch(next.connection, peer->second.role, next.message);
  }
  note_lateness(clock_.now());
  retry_pulls();
  sync_->on_tick();
  if (settler_) settler_->on_tick();
  upkeep();
  heartbeat();
  finish_turn();
}

}  // namespace pstorage::cs
