// Chunk_io: makes the replicas of a chunk agree before its first I/O.
#include <algorithm>
#include <cstring>
#include <utility>

#include "core/client/chunk_io.h"
#include "core/mutant.h"

namespace pstorage::client {
namespace {

constexpr std::uint32_t merge_run_blocks = 256;  // 1 MiB a step

}  // namespace

void Chunk_io::restart_reconciliation() {
  merge_.reset();
  ++merge_round_;
}

void Chunk_io::compare() {
  compares_ = true;
  note_unrest();
  advance();
}

void Chunk_io::reconcile_if_needed() {
  bool const compares = is_comparison_due();
  // A repair must not meet a change that is on its way: it would undo it.
  if (compares && (is_drained() || PS_MUTANT(compare_beside_changes))) reconciled_ = false;
  if (reconciled_ || merge_ != nullptr || count(proto::REPLICA_IN_SYNC) == 0) return;
  // The last writer has closed the file: they are equal.
  if (host_.is_reader() && !compares) return reconciled();
  bool differs = compares;
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
  refuse(replicas_[index], why);
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
    compares_ = false;
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

/// Like a write it has to be flushed; until then a power failure takes it back.
void Chunk_io::note_repair(Replica& replica) {
  replica.repaired = true;
  replica.repair_flushing = false;
  if (!std::exchange(replica.dirty, true)) host_.mark_dirty(*this, replica.cs);
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
  note_repair(replicas_[step.source]);
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
    note_repair(replicas_[i]);
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
