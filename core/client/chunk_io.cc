#include "core/client/chunk_io.h"

#include <algorithm>
#include <utility>

#include "core/assert.h"
#include "core/crc32c.h"
#include "core/mutant.h"

namespace pstorage::client {
namespace {

constexpr Duration report_retry = std::chrono::milliseconds(500);
constexpr Duration space_retry = std::chrono::milliseconds(500);

Slice checksums_of(Slice const& data) {
  std::size_t const blocks = data.size() / block_bytes;
  Slice crcs = Slice::allocate(blocks * sizeof(std::uint32_t));
  for (std::size_t i = 0; i < blocks; ++i)
    store_le(crcs.data() + i * sizeof(std::uint32_t),
             crc32c({data.data() + i * block_bytes, block_bytes}));
  return crcs;
}

}  // namespace

Chunk_io::Chunk_io(Chunk_host& host, std::uint32_t index) : host_(host), index_(index) {}

Chunk_io::~Chunk_io() {
  for (auto& ticket : tickets_)
    if (ticket->op != nullptr) Cs_link::cancel(*ticket->op);
  waiting_.clear();
  in_flight_.clear();
}

Chunk_io::Ticket& Chunk_io::new_ticket(Task task, Cs_id cs, Piece* piece) {
  if (free_tickets_.empty()) {
    tickets_.push_back(std::make_unique<Ticket>());
    free_tickets_.push_back(tickets_.back().get());
  }
  Ticket& ticket = *free_tickets_.back();
  free_tickets_.pop_back();
  ticket = {.task = task, .cs = cs, .piece = piece, .round = piece != nullptr ? piece->serial : 0};
  return ticket;
}

void Chunk_io::free_ticket(Ticket& ticket) {
  ticket.op = nullptr;
  ticket.piece = nullptr;
  free_tickets_.push_back(&ticket);
}

int Chunk_io::index_of(Cs_id cs) const {
  for (std::size_t i = 0; i < replicas_.size(); ++i)
    if (replicas_[i].cs == cs) return static_cast<int>(i);
  return -1;
}

Header Chunk_io::header(Operation operation) const {
  Header header;
  header.operation = operation;
  header.chunk = id_;
  header.stamp = Stamp::of(host_.epoch(), 0);
  header.version = version_;
  return header;
}

bool Chunk_io::uses(Cs_link const& link) const {
  return std::any_of(replicas_.begin(), replicas_.end(),
                     [&](Replica const& replica) { return replica.link == &link; });
}

bool Chunk_io::dirty_at(Cs_id cs) const {
  int const index = index_of(cs);
  return index >= 0 && replicas_[static_cast<std::size_t>(index)].dirty;
}

void Chunk_io::flushed_at(Cs_id cs) {
  int const index = index_of(cs);
  if (index < 0) return;
  Replica& replica = replicas_[static_cast<std::size_t>(index)];
  replica.dirty = false;
  replica.repair_flushing = replica.repaired && merge_ == nullptr;
}

void Chunk_io::flush_answered_at(Cs_id cs) {
  int const index = index_of(cs);
  if (index < 0) return;
  Replica& replica = replicas_[static_cast<std::size_t>(index)];
  if (std::exchange(replica.repair_flushing, false)) replica.repaired = false;
}

void Chunk_io::dirty_again_at(Cs_id cs) {
  int const index = index_of(cs);
  if (index < 0) return;
  replicas_[static_cast<std::size_t>(index)].repair_flushing = false;
  if (replicas_[static_cast<std::size_t>(index)].dirty) return;
  replicas_[static_cast<std::size_t>(index)].dirty = true;
  host_.mark_dirty(*this, cs);
}

bool Chunk_io::flush_refused_at(Cs_id cs, Errc why) {
  int const index = index_of(cs);
  if (index < 0) return true;
  Replica& replica = replicas_[static_cast<std::size_t>(index)];
  refuse(replica, why);
  advance();
  return has_good_member();
}

bool Chunk_io::opened_at(Cs_id cs) const {
  int const index = index_of(cs);
  return index >= 0 && replicas_[static_cast<std::size_t>(index)].opened;
}

bool Chunk_io::is_calm() const {
  if (!is_idle() || compares_) return false;
  if (!id_ || aborted_ != Errc::ok) return true;
  return all_opened() || !needs_members();
}

bool Chunk_io::wants_change() const {
  return changes_in_flight_ > 0 ||
         std::any_of(waiting_.begin(), waiting_.end(), [](Piece const& p) { return is_change(p); });
}

void Chunk_io::submit(Piece& piece) {
  piece.owner = this;
  if (aborted_ != Errc::ok) return host_.piece_done(piece, aborted_);
  waiting_.push_back(piece);
  note_unrest();
  if (!id_ || !can_write())
    advance();
  else
    start_waiting();
}

void Chunk_io::advance() {
  if (aborted_ != Errc::ok) return;
  if (!id_ || never_written_) return answer_unmapped();
  judge_members();
  if (never_written_) return answer_unmapped();
  report_if_needed();
  open_members();
  reconcile_if_needed();
  settle_held();
  answer_held_reads();
  start_waiting();
}

void Chunk_io::abort(Errc why) {
  aborted_ = why;
  merge_.reset();
  for (auto& ticket : tickets_)
    if (ticket->op != nullptr) {
      Cs_link::cancel(*ticket->op);
      free_ticket(*ticket);
    }
  for (Piece_list* list : {&in_flight_, &waiting_})
    while (!list->empty()) {
      Piece& piece = list->front();
      list->pop_front();
      piece.in_flight = false;
      piece.held_behind = {};
      host_.piece_done(piece, why);
    }
  changes_in_flight_ = reads_held_ = 0;
}

// ------------------------------------------------------------------ no chunk yet, or none at all

void Chunk_io::answer_unmapped() {
  for (auto place = waiting_.begin(); place != waiting_.end();) {
    Piece& piece = *place;
    bool const stores_nothing = piece.kind == Piece_kind::zero ||
                                (piece.kind == Piece_kind::merge && piece.user_data.empty());
    bool const behind = std::any_of(waiting_.begin(), place, [&](Piece const& earlier) {
      return is_change(earlier) && overlap(earlier, piece);
    });
    if (behind || (is_change(piece) && !stores_nothing)) {
      ++place;
      continue;
    }
    place = waiting_.erase(place);
    if (piece.kind == Piece_kind::read) {
      piece.data = Slice::allocate(piece.user_length);
      std::fill_n(piece.data.data(), piece.user_length, std::byte{0});
    }  // a table without a chunk stays empty: one hole
    host_.piece_done(piece, Errc::ok);
  }
  if (waiting_.empty() || allocating_ || host_.now() < retry_report_at_) return;
  allocating_ = true;
  host_.ask_allocation(*this);
}

void Chunk_io::allocation_failed(Errc why) {
  allocating_ = false;
  bool const waits = why == Errc::no_space && host_.waits_when_full();
  if (why == Errc::unavailable || why == Errc::no_placement || waits) {
    retry_report_at_ = host_.now() + report_retry;
    return;
  }
  while (!waiting_.empty()) {
    Piece& piece = waiting_.front();
    waiting_.pop_front();
    host_.piece_done(piece, why);
  }
}

// ------------------------------------------------------------------ starting

bool Chunk_io::may_start(Piece const& piece, Piece_list::const_iterator self) const {
  bool const change = is_change(piece);
  if (piece.not_before != Time_point{} && host_.now() < piece.not_before) return false;
  if (!change && PS_MUTANT(reads_pass_writes_in_flight)) return can_read();
  if (change ? !can_write() : !can_read()) return false;
  if (changes_in_flight_ > 0)
    for (Piece const& other : in_flight_)
      if (is_change(other) && overlap(other, piece)) return false;
  for (auto other = waiting_.begin(); other != self; ++other)
    if (is_change(*other) && overlap(*other, piece)) return false;
  return true;
}

void Chunk_io::start_waiting() {
  for (auto place = waiting_.begin(); place != waiting_.end();) {
    if (!may_start(*place, place)) {
      ++place;
      continue;
    }
    Piece& piece = *place;
    place = waiting_.erase(place);
    start(piece);
  }
}

void Chunk_io::start(Piece& piece) {
  in_flight_.push_back(piece);
  piece.in_flight = true;
  piece.started = host_.now();
  if (is_change(piece)) ++changes_in_flight_;
  if (piece.kind == Piece_kind::write || piece.kind == Piece_kind::zero)
    start_change(piece);
  else
    start_read(piece);
}

void Chunk_io::finish(Piece& piece, Errc status) {
  in_flight_.erase(in_flight_.iterator_to(piece));
  piece.in_flight = false;
  if (is_change(piece)) --changes_in_flight_;
  if (is_change(piece) && status == Errc::ok) answered_ = std::max(answered_, piece.stamp.value);
  host_.piece_done(piece, status);
}

void Chunk_io::back_to_waiting(Piece& piece) {
  in_flight_.erase(in_flight_.iterator_to(piece));
  piece.in_flight = false;
  if (is_change(piece)) --changes_in_flight_;
  piece.tried = piece.corrupt = 0;
  piece.hedged = false;
  waiting_.push_front(piece);
}

// ------------------------------------------------------------------ writes and zeroes

void Chunk_io::start_change(Piece& piece) {
  // Behind every stamped piece: resend() relies on the list being in the order of stamps.
  in_flight_.erase(in_flight_.iterator_to(piece));
  in_flight_.push_back(piece);
  piece.stamp = Stamp::of(host_.epoch(), next_sequence_++);
  PS_ASSERT(next_sequence_ != 0);
  if (piece.kind == Piece_kind::write && piece.crcs.empty()) piece.crcs = checksums_of(piece.data);
  for (std::uint32_t i = 0; i < replicas_.size(); ++i) {
    // A newcomer that has not joined yet gets this one by its pull: it joins only when nothing
    // is on the way to the others.
    if (replicas_[i].state == proto::REPLICA_SYNCING && !replicas_[i].opened) continue;
    piece.waiting |= 1u << i;
  }
  for (std::uint32_t i = 0; i < replicas_.size(); ++i)
    if ((piece.waiting >> i & 1) != 0 && replicas_[i].opened) send_change(piece, i);
}

void Chunk_io::send_change(Piece& piece, std::uint32_t index) {
  Replica& replica = replicas_[index];
  Message message;
  message.header = header(piece.kind == Piece_kind::zero ? Operation::zero : Operation::write);
  message.header.stamp = piece.stamp;
  message.header.offset = piece.offset;
  message.header.length = piece.length;
  message.meta = piece.crcs;
  message.data = piece.data;
  piece.sent |= 1u << index;
  if (!replica.dirty) {
    replica.dirty = true;
    host_.mark_dirty(*this, replica.cs);
  }
  Ticket& ticket = new_ticket(Task::change, replica.cs, &piece);
  ticket.op = &replica.link->submit(std::move(message), *this, &ticket);
}

void Chunk_io::resend(std::uint32_t index) {
  for (Piece& piece : in_flight_)
    if (is_owed(piece, index) && (piece.gaps >> index & 1) == 0) send_change(piece, index);
  // Last, because they get new stamps, and go to the end of the list.
  for (auto place = in_flight_.begin(); place != in_flight_.end();) {
    Piece& piece = *place++;
    if (is_owed(piece, index)) stamp_again(piece);
  }
}

bool Chunk_io::is_owed(Piece const& piece, std::uint32_t index) {
  return piece.stamp.value != 0 && (piece.waiting >> index & 1) != 0 &&
         (piece.sent >> index & 1) == 0;
}

/// One that had no room for it may have taken later ones since: under its old stamp it would take
/// this for one that it has.
void Chunk_io::stamp_again(Piece& piece) {
  piece.gaps = piece.sent = piece.waiting = 0;
  start_change(piece);
  for (Piece& read : in_flight_)
    if (read.held_behind.value != 0) read.held_behind = Stamp::of(host_.epoch(), next_sequence_);
}

void Chunk_io::on_change_reply(Piece& piece, std::uint32_t index, Message& reply) {
  Replica& replica = replicas_[index];
  std::uint32_t const bit = 1u << index;
  switch (reply.header.status) {
    case Errc::ok:
      replica.acked = std::max(replica.acked, piece.stamp.value);
      // The flag may have been cleared by a flush that was sent before this write.
      if (!replica.dirty) {
        replica.dirty = true;
        host_.mark_dirty(*this, replica.cs);
      }
      piece.waiting &= ~bit;
      if (piece.waiting == 0) settle(piece);
      return;
    case Errc::stale_epoch:
      return host_.lease_lost();
    case Errc::unavailable:
      piece.sent &= ~bit;
      replica.opened = false;  // opened again at the next tick, and then sent again
      return;
    case Errc::stale_version:
    case Errc::not_open:
      piece.sent &= ~bit;
      if (reply.header.version != version_ && !replica.opened) return;  // of an earlier version
      replica.opened = false;
      host_.ask_map(*this);
      return;
    case Errc::no_space:
      piece.no_space |= bit;
      piece.waiting &= ~bit;
      if (piece.waiting == 0) settle(piece);
      return;
    case Errc::corrupt:
      piece.sent &= ~bit;
      return replica.link->fail("data was damaged on the way");
    default:
      refuse(replica, reply.header.status);
      return;
  }
}

/// Nobody has stored anything of it.
void Chunk_io::no_room_for(Piece& piece) {
  // But a newcomer that had room: it would differ from the others when its pull is done.
  for (std::uint32_t i = 0; i < replicas_.size(); ++i)
    if (replicas_[i].state == proto::REPLICA_SYNCING && (piece.sent >> i & 1) != 0 &&
        (piece.no_space >> i & 1) == 0)
      refuse(replicas_[i], "it has a write that the others had no room for");
  if (!host_.waits_when_full() || PS_MUTANT(fail_without_room))
    return finish(piece, Errc::no_space);
  back_to_waiting(piece);
  piece.stamp = {};
  piece.sent = piece.no_space = 0;
  piece.not_before = host_.now() + space_retry;
}

void Chunk_io::settle(Piece& piece) {
  if (piece.waiting != 0) return;
  if (piece.no_space != 0) {
    bool someone_has_it = false;
    for (std::uint32_t i = 0; i < replicas_.size(); ++i)
      if (replicas_[i].state == proto::REPLICA_IN_SYNC && (piece.no_space >> i & 1) == 0 &&
          (piece.sent >> i & 1) != 0)
        someone_has_it = true;
    if (!someone_has_it) return no_room_for(piece);
    // The full ones must leave the set before this write may be acknowledged.
    for (std::uint32_t i = 0; i < replicas_.size(); ++i)
      if ((piece.no_space >> i & 1) != 0) refuse(replicas_[i], Errc::no_space);
    piece.waiting = std::exchange(piece.no_space, 0);
    piece.gaps |= piece.waiting;
    if (!PS_MUTANT(forget_the_full_ones)) piece.sent &= ~piece.waiting;  // if they come back
    return;
  }
  // Written everywhere, but everywhere is less than promised: the answer waits with the writes
  // behind it until the set has grown again. So it does while a member that has acknowledged it is
  // out of reach: it may be losing the write right now. Back with it, or dropped, we know.
  std::uint32_t serving = 0;
  for (Replica const& replica : replicas_) {
    if (replica.state != proto::REPLICA_IN_SYNC) continue;
    if (!replica.opened) return;
    ++serving;
  }
  if (serving >= host_.replicas_min()) finish(piece, Errc::ok);
}

void Chunk_io::settle_held() {
  if (changes_in_flight_ == 0) return;
  for (auto place = in_flight_.begin(); place != in_flight_.end();) {
    Piece& piece = *place++;
    if (piece.stamp.value == 0) continue;
    if (piece.waiting == 0) {
      settle(piece);
      continue;
    }
    // Those that are merely out of reach may come back, full ones may get room; those that refuse
    // (a failed disk) will not. Nor is it over while the MDS is asked whether these are still the
    // members.
    bool const waits = host_.waits_when_full();
    bool const hopeless =
        !confirming_ &&
        std::all_of(replicas_.begin(), replicas_.end(), [&](Replica const& replica) {
          return (replica.refused && !(replica.full && waits)) ||
                 replica.state != proto::REPLICA_IN_SYNC;
        });
    if (!hopeless) continue;
    host_.log().error(
        "no replica takes writes any more",
        {{"chunk", id_}, {"reason", replicas_.empty() ? "no replica" : replicas_[0].refusal}});
    finish(piece, Errc::io_error);
  }
}

bool Chunk_io::is_drained() const {
  if (changes_in_flight_ == 0) return true;
  return std::none_of(in_flight_.begin(), in_flight_.end(), [](Piece const& piece) {
    return is_change(piece) && (piece.waiting != 0 || piece.stamp.value == 0);
  });
}

// ------------------------------------------------------------------ answers

void Chunk_io::on_cs_reply(Cs_op& op, Message& reply) {
  Ticket const ticket = *static_cast<Ticket*>(op.context);
  free_ticket(*static_cast<Ticket*>(op.context));
  int const place = index_of(ticket.cs);
  handle_reply(ticket, place, reply, op);
  host_.end_of_event();
}

void Chunk_io::handle_reply(Ticket const& ticket, int place, Message& reply, Cs_op& op) {
  if (place < 0) {  // no longer a member
    if (ticket.task == Task::read) read_lost(*ticket.piece, op);
    return advance();
  }
  auto const index = static_cast<std::uint32_t>(place);
  switch (ticket.task) {
    case Task::change:
      // The write may have been answered without this member, which has since joined again.
      if (ticket.piece->serial == ticket.round) on_change_reply(*ticket.piece, index, reply);
      answer_held_reads();
      if (waiting_.empty() && all_opened()) return;  // the data path ends here
      break;
    case Task::read:
      on_read_reply(*ticket.piece, index, reply, op);
      if (waiting_.empty()) return;
      break;
    case Task::open:
      on_opened(index, ticket.round, reply);
      break;
    default:
      on_merge_reply(ticket, index, reply);
      break;
  }
  advance();
}

void Chunk_io::on_cs_lost(Cs_op& op) {
  Ticket const ticket = *static_cast<Ticket*>(op.context);
  free_ticket(*static_cast<Ticket*>(op.context));
  int const place = index_of(ticket.cs);
  if (ticket.task == Task::read) {
    if (place >= 0) ticket.piece->tried |= 1u << place;
    return read_lost(*ticket.piece, op);
  }
  if (place < 0) return;
  if (ticket.task == Task::change && ticket.piece->serial == ticket.round)
    ticket.piece->sent &= ~(1u << place);
  if (ticket.task == Task::change && PS_MUTANT(acknowledge_without_the_failed_replica)) {
    ticket.piece->waiting &= ~(1u << place);
    settle(*ticket.piece);
  }
  // link_down() follows for the rest.
}

}  // namespace pstorage::client
