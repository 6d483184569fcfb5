// Chunk_io: who the replicas are, opening them, reporting failures.
#include <algorithm>
#include <utility>

#include "core/assert.h"
#include "core/client/chunk_io.h"
#include "core/crc32c.h"
#include "core/mutant.h"

namespace pstorage::client {
namespace {

constexpr Duration report_retry = std::chrono::milliseconds(500);
constexpr Duration look_interval = std::chrono::seconds(1);

}  // namespace

std::uint32_t Chunk_io::count(proto::Replica_state state) const {
  std::uint32_t found = 0;
  for (Replica const& replica : replicas_) found += replica.state == state ? 1 : 0;
  return found;
}

bool Chunk_io::has_joiner() const {
  return std::any_of(replicas_.begin(), replicas_.end(), [](Replica const& replica) {
    return replica.state == proto::REPLICA_SYNCING && !replica.opened;
  });
}

bool Chunk_io::needs_members() const {
  // Without requests: a newcomer waits to be joined, or a flush for the servers to be open again.
  return !is_idle() || reconciled_ || compares_ || has_joiner() ||
         std::any_of(replicas_.begin(), replicas_.end(),
                     [](Replica const& replica) { return replica.dirty; });
}

bool Chunk_io::all_opened() const {
  return std::all_of(replicas_.begin(), replicas_.end(),
                     [](Replica const& replica) { return replica.opened && !replica.refused; });
}

bool Chunk_io::can_write() const {
  return reconciled_ && !is_comparison_due() && all_opened() &&
         count(proto::REPLICA_IN_SYNC) >= host_.replicas_min();
}

/// A newcomer pulls from one of the replicas while it is being synced: it is compared, too, then.
bool Chunk_io::is_comparison_due() const { return compares_ && count(proto::REPLICA_SYNCING) == 0; }

bool Chunk_io::can_read() const {
  return reconciled_ && std::any_of(replicas_.begin(), replicas_.end(), [](Replica const& replica) {
           return replica.opened && replica.state == proto::REPLICA_IN_SYNC;
         });
}

bool Chunk_io::has_good_member() const {
  if (PS_MUTANT(drop_the_last_replica)) return true;
  return std::any_of(replicas_.begin(), replicas_.end(), [](Replica const& replica) {
    return replica.state == proto::REPLICA_IN_SYNC && replica.link->is_up() && !replica.refused &&
           !replica.missing && !replica.lost_writes;
  });
}

bool Chunk_io::has_proven_member() const {
  if (PS_MUTANT(believe_who_was_away)) return true;
  return std::any_of(replicas_.begin(), replicas_.end(), [](Replica const& replica) {
    return replica.state == proto::REPLICA_IN_SYNC && replica.link->is_up() && replica.opened &&
           !replica.refused && !replica.missing && !replica.lost_writes;
  });
}

std::string Chunk_io::waiting_reason() const {
  if (is_idle()) return {};
  std::string const name = "chunk " + std::to_string(id_.value);
  if (!id_) return "no chunk server has room for a new chunk, or the MDS does not answer";
  if (reporting_) return name + ": waiting for the MDS to drop a failed replica";
  for (Replica const& replica : replicas_)
    if (!replica.link->is_up())
      return name + ": cs " + std::to_string(replica.cs.value) + " is not reachable (" +
             replica.link->last_failure() + ")";
  if (merge_ != nullptr) return name + ": comparing its replicas";
  if (auto const have = count(proto::REPLICA_IN_SYNC); have < host_.replicas_min())
    return name + ": " + std::to_string(have) + " of at least " +
           std::to_string(host_.replicas_min()) + " replicas are up to date";
  for (Replica const& replica : replicas_)
    if (!replica.opened || replica.refused)
      return name + ": cs " + std::to_string(replica.cs.value) +
             (replica.refused ? " refuses: " + replica.refusal : " does not serve it yet");
  bool const is_full = std::any_of(waiting_.begin(), waiting_.end(), [](Piece const& piece) {
    return piece.not_before != Time_point{};
  });
  if (is_full) return name + ": its chunk servers have no room";
  return name + ": waiting for answers";
}

// ------------------------------------------------------------------ the map

void Chunk_io::adopt(proto::Chunk const& chunk, bool just_allocated) {
  if (aborted_ != Errc::ok) return;
  allocating_ = false;
  if (id_ && chunk.version() <= version_.value) return advance();
  reporting_ = false;
  retry_report_at_ = {};
  note_unrest();
  id_ = {chunk.chunk()};
  version_ = {chunk.version()};
  std::vector<Replica> members;
  std::vector<int> from;  // old index
  for (auto const& one : chunk.replicas()) {
    if (one.state() == proto::REPLICA_STALE || members.size() == replicas_max) continue;
    // A newcomer is joined by its writer, or by nobody.
    if (host_.is_reader() && one.state() == proto::REPLICA_SYNCING) continue;
    Replica replica;
    int const old = index_of({one.cs()});
    if (old >= 0) replica = replicas_[static_cast<std::size_t>(old)];
    replica.cs = {one.cs()};
    replica.state = one.state();
    replica.link = &host_.link_of(replica.cs);
    replica.opened = replica.opening = replica.unclean = replica.reported = false;
    if (std::exchange(replica.too_slow, false)) replica.refused = false;
    bool const joins = replica.state == proto::REPLICA_SYNCING;
    // Its pull was complete before it could be dropped: what is on the way is sent to it again.
    if (!joins && std::exchange(replica.cut_off, false)) replica.refused = false;
    // The MDS would not have ordered this sync if it did not hear the server.
    bool const was_joining =
        old >= 0 && replicas_[static_cast<std::size_t>(old)].state == proto::REPLICA_SYNCING;
    if (joins && !was_joining) replica.link->try_again();
    // A newcomer begins anew at every version, and may have been dropped and chosen again since the
    // last. A reader asks everybody again.
    if (joins || host_.is_reader()) replica.refused = replica.missing = replica.lost_writes = false;
    // Every member of a chunk that was allocated for us has to make it.
    replica.create = !host_.is_reader() && (just_allocated || version_.value == 1 || joins);
    members.push_back(replica);
    from.push_back(old);
  }
  std::uint32_t newcomers = 0;
  for (std::uint32_t i = 0; i < members.size(); ++i)
    if (members[i].state == proto::REPLICA_SYNCING && !PS_MUTANT(wait_for_a_newcomer))
      newcomers |= 1u << i;
  remap_pieces(from, newcomers);
  replicas_ = std::move(members);
  never_written_ = false;
  restart_reconciliation();
  host_.flush_may_go_on();
  advance();
}

void Chunk_io::remap_pieces(std::vector<int> const& from, std::uint32_t newcomers) {
  auto const remap = [&](std::uint32_t mask) {
    std::uint32_t result = 0;
    for (std::uint32_t i = 0; i < from.size(); ++i)
      if (from[i] >= 0 && (mask >> from[i] & 1) != 0) result |= 1u << i;
    return result;
  };
  for (Piece_list* list : {&in_flight_, &waiting_})
    for (Piece& piece : *list) {
      for (std::uint32_t* mask : {&piece.waiting, &piece.sent, &piece.no_space, &piece.gaps,
                                  &piece.tried, &piece.corrupt})
        *mask = remap(*mask);
      // A newcomer joins (again) behind all of them and gets them by its pull. It joins only when
      // nothing is on the way, so nothing may wait for it.
      piece.waiting &= ~newcomers;
      piece.no_space &= ~newcomers;
      piece.gaps &= ~newcomers;
    }
}

void Chunk_io::map_confirmed(proto::Chunk const* chunk) {
  confirming_ = false;
  if (aborted_ != Errc::ok) return;
  if (chunk != nullptr && chunk->version() > version_.value) return adopt(*chunk, false);
  confirmed_ = chunk != nullptr && chunk->version() == version_.value;
  if (chunk == nullptr) return note_unrest();
  advance();
  confirmed_ = false;
}

void Chunk_io::report_answered(Version version) {
  if (version != version_) return;  // a newer set came before the answer: nobody heeds the report
  reporting_ = false;
  for (Replica& replica : replicas_) replica.reported = false;
  retry_report_at_ = host_.now() + report_retry;
}

void Chunk_io::link_up(Cs_link& link) {
  if (!uses(link)) return;
  // Writes that waited for this member will be answered soon. The others acknowledged them a while
  // ago and may have lost them since, unnoticed: nothing was on the way to them. Opening tells.
  if (changes_in_flight_ > 0 && reconciled_)
    for (Replica& replica : replicas_)
      if (replica.link != &link && replica.state == proto::REPLICA_IN_SYNC) replica.opened = false;
  advance();
}

void Chunk_io::link_down(Cs_link& link) {
  for (Replica& replica : replicas_) {
    if (replica.link != &link) continue;
    // A joined newcomer that misses a write must begin again: it cannot be resumed.
    if (replica.state == proto::REPLICA_SYNCING && (replica.opened || replica.opening)) {
      refuse(replica, link.last_failure());
      replica.cut_off = true;
    }
    if (replica.opened || replica.opening) restart_reconciliation();
    replica.opened = replica.opening = false;
    // A restarted server gets a new chance to serve.
    if (replica.state == proto::REPLICA_IN_SYNC) replica.refused = replica.missing = false;
  }
  if (!uses(link)) return;
  never_written_ = false;
  note_unrest();
  advance();
}

/// Have all who should have it said that they do not? Then nothing in it was ever flushed: they
/// lost it with the power, or its writer died before it made it.
bool Chunk_io::is_missing_everywhere() const {
  return count(proto::REPLICA_IN_SYNC) != 0 &&
         std::all_of(replicas_.begin(), replicas_.end(), [](Replica const& replica) {
           return replica.missing || replica.state != proto::REPLICA_IN_SYNC;
         });
}

/// Who has no such chunk may have deleted it, because it was moved or its file is gone.
void Chunk_io::judge_as_reader() {
  if (is_missing_everywhere()) {
    never_written_ = std::exchange(confirmed_, false);
    if (!never_written_ && !std::exchange(confirming_, true)) host_.confirm_map(*this);
    return;
  }
  bool is_lacking = false;
  for (Replica& replica : replicas_) {
    if (!replica.missing && !replica.lost_writes) continue;
    replica.lost_writes = false;
    refuse(replica, "it has no such chunk");
  }
  for (Replica const& replica : replicas_)
    is_lacking = is_lacking || replica.refused || replica.link->is_unreachable();
  if (!is_lacking || waiting_.empty() || host_.now() < retry_report_at_) return;
  retry_report_at_ = host_.now() + report_retry;
  host_.ask_map(*this);
}

void Chunk_io::judge_members() {
  if (host_.is_reader()) return judge_as_reader();
  judge_slowness({});
  std::uint32_t in_sync = 0, missing = 0, lost = 0, good = 0;
  for (Replica const& replica : replicas_) {
    if (replica.state != proto::REPLICA_IN_SYNC) continue;
    ++in_sync;
    missing += replica.missing ? 1 : 0;
    lost += replica.lost_writes ? 1 : 0;
    good += replica.opened ? 1 : 0;
  }
  if (missing + lost == 0) return;
  bool const nobody_has_it = missing == in_sync && !reconciled_ && answered_ == 0;
  bool const everybody_lost = missing + lost == in_sync && !nobody_has_it;
  // Or it was moved: they have deleted it because others hold it now, and the news did not reach
  // us. Whoever deletes a replica does so after the set has changed, so a look now will tell.
  if ((nobody_has_it || everybody_lost) && !confirmed_) {
    if (!std::exchange(confirming_, true)) host_.confirm_map(*this);
    return;
  }
  confirmed_ = false;
  if (everybody_lost) host_.writes_lost(*this);
  for (Replica& replica : replicas_) {
    if (!replica.missing && !replica.lost_writes) continue;
    if (nobody_has_it || everybody_lost) {
      // Never written, or the best there is: go on with what the replicas have.
      replica.create = replica.create || replica.missing;
      replica.missing = replica.lost_writes = replica.repaired = replica.refused = false;
      replica.acked = 0;
    } else if (good > 0) {
      refuse(replica, replica.missing ? "it has no such chunk" : "it lost acknowledged writes");
    }
  }
  if (nobody_has_it || everybody_lost) answered_ = 0;
  if (everybody_lost) reconciled_ = false;
  if (nobody_has_it || everybody_lost) send_again_to_all();
}

/// A member that holds changes or a flush up while its peers have long answered leaves the set, if
/// enough others keep the promise of replicas_min without it.
void Chunk_io::judge_slowness(Cs_id holds_flush) {
  std::uint32_t quick = 0;
  for (Replica const& replica : replicas_)
    quick += replica.state == proto::REPLICA_IN_SYNC && replica.opened &&
                     (!replica.refused || replica.too_slow) && !replica.link->latency().is_slow()
                 ? 1
                 : 0;
  bool const enough = quick >= std::max(1u, host_.replicas_min()) || PS_MUTANT(drop_slow_below_min);
  for (Replica& replica : replicas_) {
    bool const is_slow = replica.link->latency().is_slow() && enough;
    if (!is_slow && std::exchange(replica.too_slow, false)) replica.refused = false;
    bool const holds_up = changes_in_flight_ > 0 || replica.cs == holds_flush;
    if (!is_slow || !holds_up || replica.refused || !replica.opened) continue;
    replica.refused = replica.too_slow = true;
    replica.refusal = "it answers far slower than the other replicas";
  }
}

void Chunk_io::refuse(Replica& replica, std::string why) {
  replica.refused = true;
  replica.full = replica.cut_off = replica.too_slow = false;
  replica.refusal = std::move(why);
}

void Chunk_io::refuse(Replica& replica, Errc why) {
  refuse(replica, message_of(why));
  replica.full = why == Errc::no_space;
}

void Chunk_io::held_up_by(Cs_id cs) {
  if (aborted_ != Errc::ok || !id_ || !is_member(cs)) return;
  judge_slowness(cs);
  report_if_needed();
}

void Chunk_io::send_again_to_all() {
  std::uint32_t members = 0;
  for (std::uint32_t i = 0; i < replicas_.size(); ++i)
    if (replicas_[i].state == proto::REPLICA_IN_SYNC) members |= 1u << i;
  // Whoever has acknowledged one of these may have lost it since.
  for (Piece& piece : in_flight_) {
    if (piece.stamp.value == 0) continue;
    piece.waiting = members;
    piece.sent = piece.no_space = 0;
  }
}

void Chunk_io::report_if_needed() {
  if (host_.is_reader()) return;
  if (!has_good_member()) return look_for_members();
  // Nobody is given up for one that was away and has not told yet what it has lost.
  if (!has_proven_member()) return;
  // Not while the MDS is away: what is true now need not be when it reads it.
  if (reporting_ || !host_.may_report() || host_.now() < retry_report_at_) return;
  bool const changes = wants_change();
  bool const wanted = !reconciled_ && !waiting_.empty();
  std::vector<Cs_id> failed;
  std::string why;
  for (Replica& replica : replicas_) {
    bool const gone =
        replica.link->is_unreachable() && (changes || wanted || replica.dirty || has_joiner());
    if (!gone && !replica.refused) continue;
    failed.push_back(replica.cs);
    replica.reported = true;
    why = replica.refused ? replica.refusal : replica.link->last_failure();
  }
  if (failed.empty()) return;
  reporting_ = true;
  host_.ask_report(*this, failed, why);
}

/// A server that was restarted may have another address: nobody tells us as long as the set stays.
void Chunk_io::look_for_members() {
  if (host_.now() < look_again_at_) return;
  look_again_at_ = host_.now() + look_interval;
  if (!PS_MUTANT(forget_the_full_ones)) try_full_ones_again();
  if (std::any_of(replicas_.begin(), replicas_.end(),
                  [](Replica const& replica) { return replica.link->is_unreachable(); }))
    host_.ask_map(*this);
}

/// Nobody is left who could stand in for them: the MDS drops none, and nobody tells when they have
/// room again.
void Chunk_io::try_full_ones_again() {
  for (Replica& replica : replicas_)
    if (replica.full && std::exchange(replica.refused, false)) replica.opened = false;
}

// ------------------------------------------------------------------ opening

void Chunk_io::open_members() {
  if (!needs_members()) return;
  for (std::uint32_t i = 0; i < replicas_.size(); ++i) {
    Replica& replica = replicas_[i];
    if (replica.opened || replica.opening || replica.refused || replica.missing ||
        replica.lost_writes)
      continue;
    // It may be dropped any time. Meanwhile the others, which have all it has, could lose what
    // only it would keep.
    if (replica.reported && !PS_MUTANT(use_who_was_reported)) continue;
    replica.link->want();
    if (!replica.link->is_up()) continue;
    // What is on its way to the others without the newcomer would be missed by its pull.
    bool const may_join = is_drained() && reconciled_;
    if (replica.state == proto::REPLICA_SYNCING && !may_join) continue;
    send_open(i);
  }
}

/// The last change that every member had when nothing was on the way; its answer may be held back.
std::uint64_t Chunk_io::newest_drained() const {
  std::uint64_t newest = answered_;
  for (Piece const& piece : in_flight_)
    if (is_change(piece) && piece.waiting == 0) newest = std::max(newest, piece.stamp.value);
  return newest;
}

void Chunk_io::send_open(std::uint32_t index) {
  Replica& replica = replicas_[index];
  proto::Cs_request request;
  auto& open = *request.mutable_open_chunks();
  open.set_file(host_.file().value);
  open.set_epoch(host_.epoch().value);
  auto& one = *open.add_chunks();
  one.set_chunk(id_.value);
  one.set_version(version_.value);
  one.set_chunk_size(host_.chunk_bytes());
  one.set_create(replica.create);
  one.set_syncing(replica.state == proto::REPLICA_SYNCING);
  if (one.syncing()) {
    one.set_join_stamp(Stamp::of(host_.epoch(), next_sequence_).value);
    // In sync it has to have what was answered, or will be as soon as there are members enough, and
    // not what is left of it at a source that lost its power.
    replica.acked = std::max(replica.acked, newest_drained());
  }
  replica.opening = true;
  Ticket& ticket = new_ticket(Task::open, replica.cs, nullptr);
  ticket.round = version_.value;
  ticket.op = &replica.link->submit(request, *this, &ticket);
}

void Chunk_io::on_opened(std::uint32_t index, std::uint64_t version, Message& message) {
  Replica& replica = replicas_[index];
  if (version != version_.value) return;  // a newer map was adopted meanwhile
  replica.opening = false;
  proto::Cs_reply reply;
  bool const parsed =
      reply.ParseFromArray(message.meta.data(), static_cast<int>(message.meta.size()));
  auto const status = static_cast<Errc>(reply.status());
  if (parsed && status == Errc::stale_epoch) return host_.lease_lost();
  if (!parsed ||
      (status == Errc::ok && (reply.chunks_size() != 1 || reply.chunks(0).chunk() != id_.value)))
    return replica.link->fail("malformed answer to opening a chunk");
  if (status == Errc::unavailable) return;  // busy with itself: asked again at the next tick
  if (status != Errc::ok) {
    refuse(replica, status);
    if (!reply.text().empty()) replica.refusal = reply.text();
    return;
  }
  opened_one(replica, reply.chunks(0));
  if (!replica.opened) return;
  // While replicas are being compared nothing new may reach them: a repair with an older stamp
  // would undo it on one of them.
  if (reconciled_) resend(index);
  host_.flush_may_go_on();
}

void Chunk_io::opened_one(Replica& replica, proto::Cs_reply::Opened const& opened) {
  switch (static_cast<Errc>(opened.status())) {
    case Errc::ok:
      break;
    case Errc::not_found:
      replica.missing = true;
      return;
    case Errc::unavailable:
      return;
    case Errc::stale_version:
      host_.ask_map(*this);
      return;
    default:
      refuse(replica, static_cast<Errc>(opened.status()));
      return;
  }
  // A repair does not raise the last stamp: whether one that was not flushed is still there after
  // an unclean stop cannot be told by it.
  bool const is_behind =
      replica.state == proto::REPLICA_IN_SYNC && opened.last_stamp() < replica.acked;
  bool const lost = is_behind || (replica.repaired && opened.unclean() && reconciled_);
  if (lost && !PS_MUTANT(forget_the_lost_writes)) {
    replica.lost_writes = true;
    replica.last_stamp = opened.last_stamp();
    return;
  }
  replica.opened = true;
  replica.last_stamp = opened.last_stamp();
  replica.unclean = opened.unclean();
}

}  // namespace pstorage::client
