// Snapshots between members: an offer, then pieces, each answered, over a connection of their own.
#include <algorithm>
#include <utility>

#include "core/crc32c.h"
#include "mds/raft/raft_node.h"

namespace pstorage::mds::raft {

// ------------------------------------------------------------------ leader

void Raft_node::send_snapshot(Member_id to) {
  if (outgoing_.contains(to)) return;
  if (source_ == nullptr) {
    log_.warn("a member is too far behind, and there is no source of snapshots", {{"member", to}});
    return;
  }
  auto const number = ++last_stream_;
  auto& outgoing = outgoing_[to];
  outgoing.number = number;
  outgoing.term = core_->term();
  outgoing.deadline = clock_.now() + options_.snapshot_timeout * 100;  // for the copy
  source_->open([this, to, number,
                 alive = std::weak_ptr(alive_)](Result<std::unique_ptr<Snapshot_reader>> opened) {
    if (!alive.expired()) snapshot_opened(to, number, std::move(opened));
  });
}

void Raft_node::snapshot_opened(Member_id to, std::uint64_t number,
                                Result<std::unique_ptr<Snapshot_reader>> opened) {
  auto const found = outgoing_.find(to);
  if (found == outgoing_.end() || found->second.number != number) return;
  auto& outgoing = found->second;
  outgoing.deadline = clock_.now() + options_.snapshot_timeout;
  bool const is_usable = opened.has_value() && core_->is_leader() &&
                         core_->term() == outgoing.term &&
                         core_->log().term_at(opened.value()->index()).has_value();
  if (is_usable) outgoing.connection = peers_->open_stream(to);
  if (!outgoing.connection) {
    outgoing.has_failed = true;  // expire_snapshots() tells the core
    return;
  }
  outgoing.reader = std::move(opened).value();
  outgoing.snapshot = core_->log().snapshot_at(outgoing.reader->index());
  log_.info("sending the metadata to a member",
            {{"member", to}, {"index", outgoing.snapshot.index}});
  raft_wire::Packet packet;
  auto& offer = *packet.mutable_offer();
  offer.set_term(outgoing.term);
  offer.set_index(outgoing.snapshot.index);
  offer.set_index_term(outgoing.snapshot.term);
  offer.set_configuration(encode_configuration(outgoing.snapshot.configuration));
  offer.set_size(outgoing.reader->size_bytes());
  peers_->send(outgoing.connection, packet);
}

void Raft_node::on_answer(Member_id from, Connection_id connection,
                          raft_wire::Answer const& answer) {
  auto const found = outgoing_.find(from);
  if (found == outgoing_.end() || found->second.connection != connection) return;
  auto& outgoing = found->second;
  outgoing.deadline = clock_.now() + options_.snapshot_timeout;
  if (answer.kind() == raft_wire::Answer::INSTALLED) return finish_outgoing(from, true);
  bool const is_next = answer.offset() == outgoing.offset && !outgoing.is_reading &&
                       outgoing.offset < outgoing.reader->size_bytes();
  if (answer.kind() != raft_wire::Answer::MORE || !is_next) return finish_outgoing(from, false);
  read_piece(from, outgoing);
}

void Raft_node::read_piece(Member_id to, Outgoing& outgoing) {
  auto const length = std::min<std::uint64_t>(snapshot_piece_bytes,
                                              outgoing.reader->size_bytes() - outgoing.offset);
  outgoing.is_reading = true;
  outgoing.reader->read(outgoing.offset, length,
                        [this, to, number = outgoing.number](Result<Slice> piece) {
                          send_piece(to, number, std::move(piece));
                        });
}

void Raft_node::send_piece(Member_id to, std::uint64_t number, Result<Slice> piece) {
  auto const found = outgoing_.find(to);
  if (found == outgoing_.end() || found->second.number != number) return;
  auto& outgoing = found->second;
  outgoing.is_reading = false;
  if (!piece.has_value()) {
    log_.error("cannot read a snapshot", {{"error", piece.error().message()}});
    outgoing.has_failed = true;
    return;
  }
  raft_wire::Packet packet;
  packet.mutable_piece()->set_offset(outgoing.offset);
  packet.mutable_piece()->set_crc(crc32c(piece.value().bytes()));
  outgoing.offset += piece.value().size();
  peers_->send(outgoing.connection, packet, std::move(piece).value());
}

void Raft_node::finish_outgoing(Member_id to, bool is_ok) {
  auto const found = outgoing_.find(to);
  if (found == outgoing_.end()) return;
  if (found->second.connection) peers_->close(found->second.connection);
  outgoing_.erase(found);
  log_.info(is_ok ? "a member has taken the metadata over" : "a member did not take the metadata",
            {{"member", to}});
  core_->snapshot_sent(to, is_ok);
}

void Raft_node::expire_snapshots() {
  std::vector<Member_id> failed;
  for (auto const& [member, outgoing] : outgoing_) {
    bool const is_void = !core_->is_leader() || core_->term() != outgoing.term;
    if (outgoing.has_failed || is_void || clock_.now() > outgoing.deadline) {
      failed.push_back(member);
    }
  }
  for (auto const member : failed) finish_outgoing(member, false);
  if (incoming_ && clock_.now() > incoming_->deadline) refuse_incoming("it has stopped");
}

std::uint64_t Raft_node::cut_limit() const {
  auto limit = ~std::uint64_t{0};
  // What follows a snapshot under way must still be there when it arrives.
  for (auto const& [member, outgoing] : outgoing_) {
    limit = std::min(limit, outgoing.reader ? outgoing.snapshot.index : core_->log().base_index());
  }
  return limit;
}

// ------------------------------------------------------------------ member that is behind

void Raft_node::on_stream_packet(Connection_id connection, Member_id from,
                                 raft_wire::Packet& packet, Slice data) {
  if (has_failed_) return;
  switch (packet.what_case()) {
    case raft_wire::Packet::kOffer:
      on_offer(connection, from, packet.offer());
      break;
    case raft_wire::Packet::kPiece:
      on_piece(connection, packet.piece(), data);
      break;
    case raft_wire::Packet::kAnswer:
      on_answer(from, connection, packet.answer());
      break;
    default:
      break;
  }
  pump();
}

void Raft_node::on_stream_closed(Connection_id connection) {
  if (incoming_ && incoming_->connection == connection) {
    incoming_.reset();
    sink_->abandon();
  }
  for (auto& [member, outgoing] : outgoing_) {
    if (outgoing.connection == connection) outgoing.has_failed = true;
  }
}

void Raft_node::answer(Connection_id connection, raft_wire::Answer::Kind kind,
                       std::uint64_t offset) {
  raft_wire::Packet packet;
  packet.mutable_answer()->set_kind(kind);
  packet.mutable_answer()->set_offset(offset);
  peers_->send(connection, packet);
}

void Raft_node::refuse_incoming(char const* why) {
  log_.warn("a snapshot of the metadata is given up", {{"reason", why}});
  answer(incoming_->connection, raft_wire::Answer::REFUSED);
  incoming_.reset();
  sink_->abandon();
}

void Raft_node::on_offer(Connection_id connection, Member_id from, raft_wire::Offer const& offer) {
  auto configuration = decode_configuration(as_bytes(offer.configuration()));
  bool const is_good = configuration.has_value() && offer.size() != 0 && sink_ != nullptr;
  if (!is_good || !core_->wants_snapshot(offer.index()) || offer.term() < core_->term()) {
    core_->refuse_snapshot(from, offer.term());
    return answer(connection, raft_wire::Answer::REFUSED);
  }
  if (incoming_) refuse_incoming("another one begins");
  if (auto const begun = sink_->begin(); !begun.has_value()) {
    log_.error("cannot receive a snapshot", {{"error", begun.error().message()}});
    return answer(connection, raft_wire::Answer::REFUSED);
  }
  Incoming incoming;
  incoming.number = ++last_stream_;
  incoming.connection = connection;
  incoming.from = from;
  incoming.snapshot = {offer.index(), offer.index_term(), std::move(configuration).value()};
  incoming.term = offer.term();
  incoming.size = offer.size();
  incoming.deadline = clock_.now() + options_.snapshot_timeout;
  incoming_ = std::move(incoming);
  answer(connection, raft_wire::Answer::MORE, 0);
}

void Raft_node::on_piece(Connection_id connection, raft_wire::Piece const& piece,
                         Slice const& data) {
  if (!incoming_ || incoming_->connection != connection) return;
  auto& incoming = *incoming_;
  bool const is_next = piece.offset() == incoming.offset && !data.empty() &&
                       data.size() <= incoming.size - incoming.offset;
  if (!is_next || piece.crc() != crc32c(data.bytes())) return refuse_incoming("a wrong piece");
  if (auto const written = sink_->write(incoming.offset, data.bytes()); !written.has_value()) {
    log_.error("cannot store a snapshot", {{"error", written.error().message()}});
    return refuse_incoming("it cannot be stored");
  }
  incoming.offset += data.size();
  incoming.deadline = clock_.now() + options_.snapshot_timeout;
  if (incoming.offset < incoming.size) {
    return answer(connection, raft_wire::Answer::MORE, incoming.offset);
  }
  sink_->sync([this, number = incoming.number, alive = std::weak_ptr(alive_)](Result<void> result) {
    if (!alive.expired()) received(number, result);
  });
}

/// All of it is durable beside the state machine: put it in its place.
void Raft_node::received(std::uint64_t number, Result<void> synced) {
  if (!incoming_ || incoming_->number != number || has_failed_) return;
  if (!synced.has_value()) return refuse_incoming("it cannot be synced");
  auto const incoming = *std::move(incoming_);
  incoming_.reset();
  if (!core_->wants_snapshot(incoming.snapshot.index)) {
    sink_->abandon();
    core_->refuse_snapshot(incoming.from, incoming.term);
    answer(incoming.connection, raft_wire::Answer::REFUSED);
    return pump();
  }
  // If we stop between the next two steps, the start finds the state machine there and the log not.
  auto const stored = store_installing(incoming.snapshot);
  auto installed = stored.has_value()
                       ? sink_->install(incoming.snapshot.index)
                       : Outcome<void>(failure(stored.error(), "cannot note a snapshot: " +
                                                                   stored.error().message()));
  if (!installed.has_value()) return on_raft_log_failed(installed.error());
  handed_out_ = incoming.snapshot.index;
  core_->snapshot_installed(incoming.snapshot, incoming.from, incoming.term);
  answer(incoming.connection, raft_wire::Answer::INSTALLED);
  release_barriers();
  pump();
}

}  // namespace pstorage::mds::raft
