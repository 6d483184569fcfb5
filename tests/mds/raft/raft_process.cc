#include "tests/mds/raft/raft_process.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace pstorage::mds::raft {

std::string make_command(unsigned key, std::uint64_t value) {
  return std::to_string(key) + " " + std::to_string(value);
}

Raft_process::Raft_process(sim::Event_queue& queue, sim::Sim_random& random, Raft_checker& checker,
                           Process_host& host, Options options, Configuration first)
    : queue_(queue),
      random_(random),
      checker_(checker),
      host_(host),
      options_(options),
      disk_(std::move(first)) {}

void Raft_process::start() {
  ++life_;
  registers_ = checkpoint_;
  auto state = disk_.state();
  state.applied = registers_.applied;
  state.installing = installing_;
  checker_.recovered(id(), state);
  core_ = std::make_unique<Raft_core>(options_.core, std::move(state), random_);
  turn();
}

void Raft_process::crash() {
  if (!is_up()) return;
  host_.trace(id(), "crash");
  ++life_;
  core_.reset();
  // Writes reach the disk in order: any number of them may have arrived.
  while (disk_.is_busy() && random_.percent(50)) disk_.complete();
  disk_.crash();
  is_syncing_ = false;
  forget_clients();
}

void Raft_process::forget_clients() {
  auto writes = std::exchange(writes_, {});
  for (auto& [index, done] : writes) done(false, index);
  auto reads = std::exchange(reads_, {});
  for (auto& read : reads) read.done(false, registers_);
  auto asked = std::exchange(asked_reads_, {});
  for (auto& [read, done] : asked) done(false, registers_);
}

void Raft_process::tick() {
  core_->tick();
  turn();
}

void Raft_process::receive(Raft_message message) {
  core_->step(std::move(message));
  turn();
}

void Raft_process::write(std::string command, Write_done done) {
  auto const index = core_->propose(Slice::copy_of(as_bytes(command)));
  if (!index.has_value()) return done(false, 0);
  writes_[index.value()] = std::move(done);
  turn();
}

void Raft_process::read(Read_done done) {
  auto const read = core_->read();
  if (!read.has_value()) return done(false, registers_);
  asked_reads_[read.value()] = std::move(done);
  turn();
}

Result<std::uint64_t> Raft_process::change(Change const& change) {
  auto const result = core_->change(change);
  turn();
  return result;
}

void Raft_process::transfer(Member_id to) {
  if (!core_->transfer(to).has_value()) return;
  turn();
}

void Raft_process::snapshot_sent(Member_id peer, bool is_ok) {
  core_->snapshot_sent(peer, is_ok);
  turn();
}

bool Raft_process::install(Image const& image, Member_id leader, std::uint64_t term) {
  bool const is_wanted = core_->wants_snapshot(image.snapshot.index);
  if (is_wanted) {
    host_.trace(id(), "install " + std::to_string(image.snapshot.index));
    // The file is renamed into place, durably, before the log hears of it.
    registers_ = checkpoint_ = image.registers;
    installing_ = image.snapshot;
    core_->snapshot_installed(image.snapshot, leader, term);
  } else {
    core_->refuse_snapshot(leader, term);
  }
  turn();
  return is_wanted;
}

void Raft_process::turn() {
  auto const life = life_;
  while (life == life_ && core_->has_ready()) {
    checker_.look(*core_);
    auto ready = core_->take_ready();
    if (host_.strikes(*core_, ready)) {
      // In this instant: the write was given to the disk, nothing was sent.
      checker_.submitted(id(), ready);
      if (ready.token != 0) disk_.write(std::move(ready));
      return crash();
    }
    carry_out(std::move(ready));
  }
  if (life == life_) checker_.look(*core_);
}

void Raft_process::carry_out(Ready ready) {
  checker_.submitted(id(), ready);
  if (ready.has_stepped_down) {
    auto writes = std::exchange(writes_, {});
    for (auto& [index, done] : writes) done(false, index);
  }
  for (auto& message : std::exchange(ready.messages_now, {})) host_.send(std::move(message));
  for (auto const peer : ready.snapshots_needed) {
    auto const snapshot = core_->log().snapshot_at(registers_.applied);
    host_.stream(id(), peer, {snapshot, registers_});
  }
  apply(ready.committed);
  finish_reads(ready.reads);
  if (ready.token != 0) submit(std::move(ready));
}

void Raft_process::submit(Ready ready) {
  disk_.write(std::move(ready));
  if (!is_syncing_) sync();
}

/// One sync for all that waits.
void Raft_process::sync() {
  is_syncing_ = true;
  auto const delay = std::max(random_.between(options_.sync_min, options_.sync_max),
                              stalled_until_ - queue_.now());
  queue_.at(delay, [this, life = life_, count = disk_.waiting()] {
    if (life == life_) synced(count);
  });
}

void Raft_process::synced(std::size_t count) {
  is_syncing_ = false;
  for (std::size_t i = 0; i < count; ++i) {
    auto ready = disk_.complete();
    checker_.persisted(id(), ready.token);
    for (auto& message : ready.messages_after) host_.send(std::move(message));
    core_->persisted(ready.token);
  }
  if (disk_.is_busy()) sync();
  turn();
}

void Raft_process::apply(std::vector<Log_entry> const& entries) {
  for (auto const& entry : entries) {
    checker_.handed_out(id(), entry);
    if (entry.index != registers_.applied + 1) checker_.fail("entries are not handed out in order");
    registers_.applied = entry.index;
    if (entry.kind == Entry_kind::command) {
      std::string command(as_text(entry.bytes.bytes()));
      unsigned key = 0;
      std::from_chars(command.data(), command.data() + command.size(), key);
      registers_.values.at(key) = {entry.index, std::move(command)};
    }
    auto const waiting = writes_.find(entry.index);
    if (waiting != writes_.end()) {
      auto done = std::move(waiting->second);
      writes_.erase(waiting);
      done(true, entry.index);
    }
  }
  if (entries.empty()) return;
  answer_reads();
  cut_log();
}

void Raft_process::finish_reads(std::vector<Read_state> const& states) {
  for (auto const& state : states) {
    auto const asked = asked_reads_.find(state.id);
    if (asked == asked_reads_.end()) continue;
    auto done = std::move(asked->second);
    asked_reads_.erase(asked);
    if (state.is_ok) {
      reads_.push_back({state.index, std::move(done)});
    } else {
      done(false, registers_);
    }
  }
  answer_reads();
}

void Raft_process::answer_reads() {
  std::vector<Waiting_read> later;
  for (auto& read : std::exchange(reads_, {})) {
    if (read.index <= registers_.applied) {
      read.done(true, registers_);
    } else {
      later.push_back(std::move(read));
    }
  }
  reads_ = std::move(later);
}

void Raft_process::cut_log() {
  if (options_.snapshot_every == 0) return;
  if (registers_.applied < checkpoint_.applied + options_.snapshot_every) return;
  checkpoint_ = registers_;
  core_->cut(registers_.applied - random_.below(options_.snapshot_every));
  auto const base = core_->log().base_index();
  if (base <= disk_.state().base.index + disk_.state().entries.size()) {
    disk_.cut(core_->log().snapshot_at(base));
  }
}

}  // namespace pstorage::mds::raft
