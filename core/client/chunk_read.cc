// Chunk_io: reads, and the reads inside unaligned writes.
#include <algorithm>
#include <utility>

#include "core/assert.h"
#include "core/client/chunk_io.h"
#include "core/crc32c.h"
#include "core/mutant.h"

namespace pstorage::client {
namespace {

// Replicas whose reads take less are equally good.
constexpr Duration quick_read = std::chrono::milliseconds(50);

}  // namespace

int Chunk_io::choose_replica(Piece const& piece) const {
  // Neighbours read one chunk from one replica: its page cache then holds the chunk once.
  auto const members = static_cast<std::uint32_t>(replicas_.size());
  int best = -1;
  for (std::uint32_t turn = 0; turn < members; ++turn) {
    std::uint32_t const i = (index_ + turn) % members;
    Replica const& replica = replicas_[i];
    bool const is_complete =
        replica.state == proto::REPLICA_IN_SYNC || PS_MUTANT(serve_a_syncing_replica);
    if (!replica.opened || !is_complete || (piece.tried >> i & 1) != 0) continue;
    if (best < 0) {
      best = static_cast<int>(i);
      continue;
    }
    Cs_link const& chosen = *replicas_[static_cast<std::size_t>(best)].link;
    bool const lags = replica.link->latency().reads_lag();
    if (lags != chosen.latency().reads_lag()) {
      if (!lags) best = static_cast<int>(i);
      continue;
    }
    bool const nearer = replica.link->is_local() && !chosen.is_local();
    bool const much_quicker = replica.link->is_local() == chosen.is_local() &&
                              chosen.read_latency() > quick_read &&
                              replica.link->read_latency() * 4 < chosen.read_latency();
    if (nearer || much_quicker) best = static_cast<int>(i);
  }
  return best;
}

void Chunk_io::start_read(Piece& piece) {
  int const index = choose_replica(piece);
  if (index >= 0) return send_read(piece, static_cast<std::uint32_t>(index));
  if (piece.reads_out > 0) return;
  bool all_corrupt = piece.corrupt != 0;
  for (std::uint32_t i = 0; i < replicas_.size(); ++i)
    if (replicas_[i].state == proto::REPLICA_IN_SYNC && (piece.corrupt >> i & 1) == 0)
      all_corrupt = false;
  // Those that were lost may come back; those that were dropped are no longer asked.
  if (!all_corrupt) return back_to_waiting(piece);
  host_.log().error("no replica has valid data", {{"chunk", id_}, {"offset", piece.offset}});
  finish(piece, Errc::corrupt);
}

void Chunk_io::send_read(Piece& piece, std::uint32_t index) {
  Message message;
  message.header = header(piece.kind == Piece_kind::table ? Operation::table : Operation::read);
  message.header.offset = piece.offset;
  message.header.length = piece.length;
  Ticket& ticket = new_ticket(Task::read, replicas_[index].cs, &piece);
  ticket.op = &replicas_[index].link->submit(std::move(message), *this, &ticket);
  piece.tried |= 1u << index;
  ++piece.reads_out;
  piece.ops[piece.ops[0] != nullptr ? 1 : 0] = ticket.op;
}

void Chunk_io::forget_op(Piece& piece, Cs_op const& op) {
  for (auto*& known : piece.ops)
    if (known == &op) {
      known = nullptr;
      --piece.reads_out;
    }
}

void Chunk_io::read_lost(Piece& piece, Cs_op const& op) {
  forget_op(piece, op);
  if (piece.reads_out == 0) start_read(piece);
}

bool Chunk_io::read_is_valid(Piece const& piece, Message const& reply) const {
  std::size_t const blocks = piece.length / block_bytes;
  if (piece.kind == Piece_kind::table) return reply.meta.size() == blocks * sizeof(Block_record);
  if (reply.data.size() != piece.length || reply.meta.size() != blocks * sizeof(std::uint32_t))
    return false;
  for (std::size_t i = 0; i < blocks; ++i)
    if (crc32c({reply.data.data() + i * block_bytes, block_bytes}) !=
        load_le<std::uint32_t>(reply.meta.data() + i * sizeof(std::uint32_t)))
      return false;
  return true;
}

void Chunk_io::on_read_reply(Piece& piece, std::uint32_t index, Message& reply, Cs_op& op) {
  forget_op(piece, op);
  Errc const status = reply.header.status;
  if (status == Errc::stale_epoch) return host_.lease_lost();
  if (status == Errc::ok && read_is_valid(piece, reply)) return read_delivered(piece, reply);
  if (status == Errc::ok || status == Errc::corrupt || status == Errc::io_error) {
    piece.corrupt |= 1u << index;
    host_.log().warn("a replica cannot deliver a block; reading another one",
                     {{"chunk", id_}, {"cs", replicas_[index].cs}, {"offset", piece.offset}});
  } else if (reply.header.version == version_ && replicas_[index].opened) {
    // It lives but does not serve under our version: open it again.
    replicas_[index].opened = false;
    host_.ask_map(*this);
  }
  if (piece.reads_out == 0) start_read(piece);
}

void Chunk_io::cancel_reads(Piece& piece) {
  for (auto*& op : piece.ops)
    if (op != nullptr) {
      free_ticket(*static_cast<Ticket*>(op->context));
      Cs_link::cancel(*op);
      op = nullptr;
      --piece.reads_out;
    }
}

void Chunk_io::read_delivered(Piece& piece, Message& reply) {
  cancel_reads(piece);
  bool const heal = std::exchange(piece.corrupt, 0) != 0;
  if (piece.kind == Piece_kind::merge) return merge_edges(piece, reply.data);
  if (piece.kind == Piece_kind::table) {
    piece.data = reply.meta;
    return finish_read(piece);
  }
  if (heal && !host_.is_reader()) start_heal(piece);
  piece.data = reply.data.part(piece.user_offset - piece.offset, piece.user_length);
  finish_read(piece);
}

/// A change that began after the read, and has reached the replica before it, may be what was read.
/// Until it is everywhere it can still be lost with that replica.
bool Chunk_io::may_have_read_ahead(Piece const& piece) const {
  if (changes_in_flight_ == 0) return false;
  return std::any_of(in_flight_.begin(), in_flight_.end(), [&](Piece const& other) {
    return is_change(other) && other.stamp.value != 0 && overlap(other, piece) &&
           (piece.held_behind.value == 0 || other.stamp.value < piece.held_behind.value);
  });
}

void Chunk_io::finish_read(Piece& piece) {
  if (!may_have_read_ahead(piece) || PS_MUTANT(reads_pass_writes_in_flight))
    return finish(piece, Errc::ok);
  piece.held_behind = Stamp::of(host_.epoch(), next_sequence_);
  ++reads_held_;
}

void Chunk_io::answer_held_reads() {
  for (auto place = in_flight_.begin(); place != in_flight_.end() && reads_held_ > 0;) {
    Piece& piece = *place++;
    if (piece.held_behind.value == 0 || may_have_read_ahead(piece)) continue;
    piece.held_behind = {};
    --reads_held_;
    finish(piece, Errc::ok);
  }
}

void Chunk_io::merge_edges(Piece& piece, Slice const& old_content) {
  // The received block may be shared with other messages: never written to.
  piece.data = Slice::copy_of(old_content.bytes());
  std::byte* to = piece.data.data() + (piece.user_offset - piece.offset);
  if (piece.user_data.empty()) std::fill_n(to, piece.user_length, std::byte{0});
  for (Slice const& part : piece.user_data) {
    std::copy_n(part.data(), part.size(), to);
    to += part.size();
  }
  piece.user_data.clear();
  piece.kind = Piece_kind::write;
  piece.tried = 0;
  start_change(piece);
}

void Chunk_io::start_heal(Piece const& read) {
  // A merge that lays nothing over the old content: it takes the range, reads what is valid by
  // then and writes it to every replica under a new stamp.
  for (Piece const& other : waiting_)
    if (other.request == nullptr && overlap(other, read)) return;
  Piece& piece = host_.new_piece();
  piece.kind = Piece_kind::merge;
  piece.offset = piece.user_offset = read.offset;
  piece.length = read.length;
  piece.user_length = 0;
  waiting_.push_back(piece);
}

/// Asks another replica what one has not answered in the usual time: the first good answer counts,
/// the other is dropped. Only for a small share of the reads, or where the asked one is known to
/// lag.
void Chunk_io::hedge_reads() {
  Time_point const now = host_.now();
  for (auto place = in_flight_.begin(); place != in_flight_.end();) {
    Piece& piece = *place++;
    if (piece.reads_out != 1 || piece.hedged) continue;
    auto const* ticket =
        static_cast<Ticket*>((piece.ops[0] != nullptr ? piece.ops[0] : piece.ops[1])->context);
    int const asked = index_of(ticket->cs);
    if (asked < 0) continue;
    Cs_link const& link = *replicas_[static_cast<std::size_t>(asked)].link;
    if (now - piece.started < link.watch().hedge_after()) continue;
    int const other = choose_replica(piece);
    if (other < 0 || (!link.latency().reads_lag() && !link.watch().take_hedge())) continue;
    piece.hedged = true;
    send_read(piece, static_cast<std::uint32_t>(other));
  }
}

void Chunk_io::on_tick() {
  if (aborted_ != Errc::ok) return;
  hedge_reads();
  if (!waiting_.empty() || changes_in_flight_ > 0 || compares_ || (id_ && !all_opened())) advance();
}

}  // namespace pstorage::client
