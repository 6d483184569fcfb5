// Chunk_io: who the replicas are, opening them, reporting failures, reconciling.
#include <algorithm>
#include <utility>

#include "core/assert.h"
#include "core/client/chunk_io.h"
#include "core/crc32c.h"
#include "core/mutant.h"

namespace pstorage::client {
namespace {

constexpr Duration report_retry = std::chrono::milliseconds(500);
constexpr std::uint32_t merge_run_blocks = 256;  // 1 MiB a step

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
  return !is_idle() || reconciled_ || has_joiner() ||
         std::any_of(replicas_.begin(), replicas_.end(),
                     [](Replica const& replica) { return replica.dirty; });
}

bool Chunk_io::all_opened() const {
  return std::all_of(replicas_.begin(), replicas_.end(),
                     [](Replica const& replica) { return replica.opened && !replica.refused; });
}

bool Chunk_io::can_write() const {
  return reconciled_ && all_opened() && count(proto::REPLICA_IN_SYNC) >= host_.replicas_min();
}

bool Chunk_io::can_read() const {
  return reconciled_ && std::any_of(replicas_.begin(), replicas_.end(), [](Replica const& replica) {
           return replica.opened && replica.state == proto::REPLICA_IN_SYNC;
         });
}

bool Chunk_io::has_good_member() const {
  return std::any_of(replicas_.begin(), replicas_.end(), [](Replica const& replica) {
    return replica.state == proto::REPLICA_IN_SYNC && replica.link->is_up() && !replica.refused &&
           !replica.missing && !replica.lost_writes;
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
  if (!reconciled_) return name + ": comparing its replicas";
  if (auto const have = count(proto::REPLICA_IN_SYNC); have < host_.replicas_min())
    return name + ": " + std::to_string(have) + " of at least " +
           std::to_string(host_.replicas_min()) + " replicas are up to date";
  for (Replica const& replica : replicas_)
    if (!replica.opened || replica.refused)
      return name + ": cs " + std::to_string(replica.cs.value) +
             (replica.refused ? " refuses: " + replica.refusal : " does not serve it yet");
  return name + ": waiting for answers";
}

// ------------------------------------------------------------------ the map

void Chunk_io::adopt(proto::Chunk const& chunk, bool just_allocated) {
  if (aborted_ != Errc::ok) return;
  allocating_ = reporting_ = false;
  if (id_ && chunk.version() <= version_.value) {
    // Nothing was dropped: the failed replica is the last one. Wait for it, ask again later.
    if (chunk.version() == version_.value) retry_report_at_ = host_.now() + report_retry;
    return advance();
  }
  retry_report_at_ = {};
  note_unrest();
  id_ = {chunk.chunk()};
  version_ = {chunk.version()};
  std::vector<Replica> members;
  std::vector<int> from;  // old index
  for (auto const& one : chunk.replicas()) {
    if (one.state() == proto::REPLICA_STALE || members.size() == replicas_max) continue;
    Replica replica;
    int const old = index_of({one.cs()});
    if (old >= 0) replica = replicas_[static_cast<std::size_t>(old)];
    replica.cs = {one.cs()};
    replica.state = one.state();
    replica.link = &host_.link_of(replica.cs);
    replica.opened = replica.opening = replica.unclean = false;
    // The MDS would not have ordered this sync if it did not hear the server.
    bool const was_joining =
        old >= 0 && replicas_[static_cast<std::size_t>(old)].state == proto::REPLICA_SYNCING;
    if (one.state() == proto::REPLICA_SYNCING && !was_joining) replica.link->try_again();
    // Every member of a chunk that was allocated for us has to make it.
    replica.create = just_allocated || version_.value == 1 || one.state() == proto::REPLICA_SYNCING;
    members.push_back(replica);
    from.push_back(old);
  }
  std::uint32_t newcomers = 0;
  for (std::uint32_t i = 0; i < members.size(); ++i)
    if (members[i].state == proto::REPLICA_SYNCING) newcomers |= 1u << i;
  remap_pieces(from, newcomers);
  replicas_ = std::move(members);
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
      for (std::uint32_t* mask :
           {&piece.waiting, &piece.sent, &piece.no_space, &piece.tried, &piece.corrupt})
        *mask = remap(*mask);
      // A newcomer joins (again) behind all of them and gets them by its pull. It joins only when
      // nothing is on the way, so nothing may wait for it.
      piece.waiting &= ~newcomers;
      piece.no_space &= ~newcomers;
    }
}

void Chunk_io::report_failed() {
  reporting_ = false;
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
      replica.refused = true;
      replica.refusal = link.last_failure();
    }
    if (replica.opened || replica.opening) restart_reconciliation();
    replica.opened = replica.opening = false;
    // A restarted server gets a new chance to serve.
    if (replica.state == proto::REPLICA_IN_SYNC) replica.refused = replica.missing = false;
  }
  if (!uses(link)) return;
  note_unrest();
  advance();
}

void Chunk_io::judge_members() {
  std::uint32_t in_sync = 0, missing = 0, lost = 0, good = 0;
  for (Replica const& replica : replicas_) {
    if (replica.state != proto::REPLICA_IN_SYNC) continue;
    ++in_sync;
    missing += replica.missing ? 1 : 0;
    lost += replica.lost_writes ? 1 : 0;
    good += replica.opened ? 1 : 0;
  }
  if (missing + lost == 0) return;
  bool const nobody_has_it = missing == in_sync && !reconciled_;
  bool const everybody_lost = missing + lost == in_sync && !nobody_has_it;
  if (everybody_lost) host_.writes_lost(*this);
  for (Replica& replica : replicas_) {
    if (!replica.missing && !replica.lost_writes) continue;
    if (nobody_has_it || everybody_lost) {
      // Never written, or the best there is: go on with what the replicas have.
      replica.create = replica.create || replica.missing;
      replica.missing = replica.lost_writes = false;
      replica.acked = 0;
    } else if (good > 0) {
      replica.refused = true;
      replica.refusal = replica.missing ? "it has no such chunk" : "it lost acknowledged writes";
    }
  }
  if (everybody_lost) reconciled_ = false;
  if (nobody_has_it || everybody_lost) send_again_to_all();
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
  if (reporting_ || host_.now() < retry_report_at_ || !has_good_member()) return;
  bool const changes = wants_change();
  bool const wanted = !reconciled_ && !waiting_.empty();
  std::vector<Cs_id> failed;
  std::string why;
  for (Replica const& replica : replicas_) {
    bool const gone =
        replica.link->is_unreachable() && (changes || wanted || replica.dirty || has_joiner());
    if (!gone && !replica.refused) continue;
    failed.push_back(replica.cs);
    why = replica.refused ? replica.refusal : replica.link->last_failure();
  }
  if (failed.empty()) return;
  reporting_ = true;
  host_.ask_report(*this, failed, why);
}

// ------------------------------------------------------------------ opening

void Chunk_io::open_members() {
  if (!needs_members()) return;
  for (std::uint32_t i = 0; i < replicas_.size(); ++i) {
    Replica& replica = replicas_[i];
    if (replica.opened || replica.opening || replica.refused || replica.missing ||
        replica.lost_writes)
      continue;
    replica.link->want();
    if (!replica.link->is_up()) continue;
    // What is on its way to the others without the newcomer would be missed by its pull.
    bool const may_join = (is_drained() && reconciled_) || PS_MUTANT(join_without_draining);
    if (replica.state == proto::REPLICA_SYNCING && !may_join) continue;
    send_open(i);
  }
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
  if (one.syncing()) one.set_join_stamp(Stamp::of(host_.epoch(), next_sequence_).value);
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
    replica.refused = true;
    replica.refusal = reply.text().empty() ? message_of(status) : reply.text();
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
      replica.refused = true;
      replica.refusal = message_of(static_cast<Errc>(opened.status()));
      return;
  }
  if (opened.last_stamp() < replica.acked && !PS_MUTANT(forget_the_lost_writes)) {
    replica.lost_writes = true;
    replica.last_stamp = opened.last_stamp();
    return;
  }
  replica.opened = true;
  replica.last_stamp = opened.last_stamp();
  replica.unclean = opened.unclean();
}

// ------------------------------------------------------------------ reconciliation

void Chunk_io::restart_reconciliation() {
  merge_.reset();
  ++merge_round_;
}

void Chunk_io::reconcile_if_needed() {
  if (reconciled_ || merge_ != nullptr || count(proto::REPLICA_IN_SYNC) == 0) return;
  bool differs = false;
  Replica const* first = nullptr;
  for (Replica const& replica : replicas_) {
    if (replica.state != proto::REPLICA_IN_SYNC) continue;
    if (!replica.opened || replica.refused) return;
    if (first == nullptr) first = &replica;
    differs = differs || replica.unclean || replica.last_stamp != first->last_stamp;
  }
  if (!differs || PS_MUTANT(skip_reconciliation)) return reconciled();
  host_.log().info("comparing the replicas of a chunk", {{"chunk", id_}});
  merge_ = std::make_unique<Merge_state>();
  merge_->tables.resize(replicas_.size());
  for (std::uint32_t i = 0; i < replicas_.size(); ++i)
    if (replicas_[i].state == proto::REPLICA_IN_SYNC) {
      merge_->tables_missing |= 1u << i;
      Message message;
      message.header = header(Operation::table);
      message.header.length = host_.chunk_bytes();
      submit_merge(Task::table, i, std::move(message));
    }
}

void Chunk_io::submit_merge(Task task, std::uint32_t index, Message message) {
  Ticket& ticket = new_ticket(task, replicas_[index].cs, nullptr);
  ticket.round = merge_round_;
  ticket.op = &replicas_[index].link->submit(std::move(message), *this, &ticket);
}

void Chunk_io::on_merge_reply(Ticket const& ticket, std::uint32_t index, Message& reply) {
  if (ticket.round != merge_round_ || merge_ == nullptr) return;
  if (reply.header.status == Errc::stale_epoch) return host_.lease_lost();
  switch (ticket.task) {
    case Task::table:
      return on_table(index, reply);
    case Task::merge_read:
      return on_merge_read(index, reply);
    case Task::merge_write:
      return on_merge_written(index, reply);
    default:
      return on_accepted(index, reply);
  }
}

void Chunk_io::merge_refused(std::uint32_t index, Errc why) {
  restart_reconciliation();
  if (why == Errc::stale_version || why == Errc::not_open) {
    replicas_[index].opened = false;
    return host_.ask_map(*this);
  }
  replicas_[index].refused = true;
  replicas_[index].refusal = message_of(why);
}

void Chunk_io::on_table(std::uint32_t index, Message& reply) {
  if (reply.header.status != Errc::ok) return merge_refused(index, reply.header.status);
  std::size_t const blocks = host_.chunk_bytes() / block_bytes;
  if (reply.meta.size() != blocks * sizeof(Block_record))
    return replicas_[index].link->fail("malformed block table");
  auto& table = merge_->tables[index];
  table.resize(blocks);
  std::memcpy(table.data(), reply.meta.data(), reply.meta.size());
  merge_->tables_missing &= ~(1u << index);
  if (merge_->tables_missing != 0) return;
  plan();
}

void Chunk_io::plan() {
  merge_->steps = plan_merge(merge_->tables, merge_run_blocks);
  merge_->step = 0;
  next_merge_step();
}

void Chunk_io::next_merge_step() {
  if (merge_->step == merge_->steps.size()) {
    host_.log().info("the replicas of a chunk agree",
                     {{"chunk", id_}, {"runs_copied", merge_->steps.size()}});
    merge_.reset();
    for (Replica& replica : replicas_) replica.unclean = false;
    return reconciled();
  }
  Merge_step const& step = merge_->steps[merge_->step];
  if (step.accept) return accept_torn(step);
  if (step.hole) return write_merge_step(step, {});
  Message message;
  message.header = header(Operation::read);
  message.header.offset = step.first * block_bytes;
  message.header.length = step.count * block_bytes;
  submit_merge(Task::merge_read, step.source, std::move(message));
}

void Chunk_io::accept_torn(Merge_step const& step) {
  proto::Cs_request request;
  auto& accept = *request.mutable_accept_torn();
  accept.set_chunk(id_.value);
  accept.set_file(host_.file().value);
  accept.set_epoch(host_.epoch().value);
  accept.set_version(version_.value);
  std::uint64_t stamp = 0;
  for (std::uint32_t i = 0; i < step.count; ++i) {
    accept.add_blocks(step.first + i);
    stamp = std::max(stamp, merge_->tables[step.source][step.first + i].stamp);
  }
  accept.set_stamp(stamp);
  Ticket& ticket = new_ticket(Task::accept, replicas_[step.source].cs, nullptr);
  ticket.round = merge_round_;
  ticket.op = &replicas_[step.source].link->submit(request, *this, &ticket);
}

void Chunk_io::on_accepted(std::uint32_t index, Message& message) {
  Merge_step const step = merge_->steps[merge_->step];
  proto::Cs_reply reply;
  bool const ok =
      reply.ParseFromArray(message.meta.data(), static_cast<int>(message.meta.size())) &&
      static_cast<Errc>(reply.status()) == Errc::ok;
  if (!ok) {
    // Rotten, not torn: nobody has the data. Reads of these blocks will say so.
    host_.log().error("no replica has valid data",
                      {{"chunk", id_}, {"offset", step.first * block_bytes}});
    ++merge_->step;
    return next_merge_step();
  }
  // The table of the source has changed: ask it again and plan anew.
  merge_->tables_missing |= 1u << index;
  Message ask;
  ask.header = header(Operation::table);
  ask.header.length = host_.chunk_bytes();
  submit_merge(Task::table, index, std::move(ask));
}

void Chunk_io::on_merge_read(std::uint32_t index, Message& reply) {
  Merge_step const step = merge_->steps[merge_->step];
  Errc const status = reply.header.status;
  bool const unreadable = status == Errc::corrupt || status == Errc::io_error;
  if (status != Errc::ok && !unreadable) return merge_refused(index, status);
  Piece shape;
  shape.length = step.count * block_bytes;
  if (unreadable || !read_is_valid(shape, reply)) {
    // Its table promised more than its data holds: these blocks come from elsewhere.
    std::uint32_t const bad =
        status == Errc::corrupt ? reply.header.offset / block_bytes : step.first;
    bool const named = bad >= step.first && bad < step.first + step.count;
    merge_->tables[index][named ? bad : step.first].flags |= block_corrupt;
    return plan();
  }
  write_merge_step(step, reply.data);
}

void Chunk_io::write_merge_step(Merge_step const& step, Slice const& data) {
  Slice records =
      Slice::copy_of({reinterpret_cast<std::byte const*>(&merge_->tables[step.source][step.first]),
                      step.count * sizeof(Block_record)});
  for (std::uint32_t i = 0; i < replicas_.size(); ++i) {
    if ((step.targets >> i & 1) == 0) continue;
    Message message;
    message.header = header(Operation::repair);
    message.header.offset = step.first * block_bytes;
    message.header.length = step.count * block_bytes;
    message.meta = records;
    message.data = data;
    merge_->writing |= 1u << i;
    if (!std::exchange(replicas_[i].dirty, true)) host_.mark_dirty(*this, replicas_[i].cs);
    submit_merge(Task::merge_write, i, std::move(message));
  }
}

void Chunk_io::on_merge_written(std::uint32_t index, Message& reply) {
  if (reply.header.status != Errc::ok) return merge_refused(index, reply.header.status);
  merge_->writing &= ~(1u << index);
  if (merge_->writing != 0) return;
  ++merge_->step;
  next_merge_step();
}

void Chunk_io::reconciled() {
  reconciled_ = true;
  for (Replica& replica : replicas_) {
    Stamp const last{replica.last_stamp};
    if (last.epoch() == host_.epoch())
      next_sequence_ = std::max(next_sequence_, last.sequence() + 1);
    replica.acked = std::max(replica.acked, replica.last_stamp);
  }
  for (std::uint32_t i = 0; i < replicas_.size(); ++i)
    if (replicas_[i].opened) resend(i);
  open_members();  // newcomers join now
}

}  // namespace pstorage::client
