#include "tests/mds/raft/raft_process.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "mds/raft/segment.h"

namespace pstorage::mds::raft {

std::string make_command(unsigned key, std::uint64_t value) {
  return std::to_string(key) + " " + std::to_string(value);
}

Raft_process::Raft_process(sim::Event_queue& queue, sim::Sim_random& random, Raft_checker& checker,
                           Process_host& host, Options options)
    : queue_(queue),
      random_(random),
      checker_(checker),
      host_(host),
      options_(std::move(options)),
      disk_(queue, random, {.sync_time = options_.sync_time}) {}

void Raft_process::start() {
  bury();
  ++life_;
  registers_ = checkpoint_;
  log_ = std::make_unique<Raft_log>(disk_, random_, quiet_, options_.log);
  auto started = log_->start(registers_.applied, *this);
  if (!started.has_value() && errc_of(started.error().code) == Errc::no_space) {
    // Damage cannot be written down on a full disk: the process ends, and is started again.
    host_.trace(id(), "does not start on a full disk");
    log_.reset();
    queue_.at(std::chrono::milliseconds(500), [this, life = life_] {
      if (life == life_) start();
    });
    return;
  }
  if (!started.has_value()) {
    checker_.fail(std::to_string(id().value) + " does not start: " + started.error().text);
    return;
  }
  auto state = std::move(started).value();
  state.installing = installing_;
  checker_.recovered(id(), state);
  core_ = std::make_unique<Raft_core>(options_.core, std::move(state), random_);
  turn();
}

void Raft_process::crash() {
  if (!is_up()) return;
  is_power_lost_ = random_.percent(70);
  host_.trace(id(), is_power_lost_ ? "loses its power" : "dies");
  ++life_;
  core_.reset();
  unsent_.clear();
  dead_log_ = std::move(log_);
  queue_.at(Duration{0}, [this, life = life_] {
    if (life == life_) bury();
  });
  forget_clients();
}

/// The rest of a crash, once nothing of the process is on the stack.
void Raft_process::bury() {
  if (!dead_log_) return;
  dead_log_.reset();
  if (is_power_lost_) {
    disk_.crash();
  } else {
    disk_.kill();
  }
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
  log_->tick();
  core_->tick();
  turn();
}

void Raft_process::receive(Raft_message message) {
  // A full disk takes no more entries; the leader sends them again.
  std::size_t bytes = 0;
  for (auto const& entry : message.entries) bytes += payload_of(entry);
  if (bytes != 0 && !log_->has_room(bytes)) return;
  core_->step(std::move(message));
  turn();
}

void Raft_process::write(std::string command, Write_done done) {
  if (!log_->has_room(command.size())) return done(false, 0);
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
      // In this instant: the write was given to the disk, and perhaps what may leave has left.
      checker_.submitted(id(), ready);
      bool const has_sent = random_.percent(50);
      for (auto& message : ready.messages_now) {
        if (has_sent) host_.send(message);
      }
      if (ready.token != 0) log_->write(ready);
      log_->flush();
      return crash();
    }
    carry_out(std::move(ready));
  }
  if (life != life_) return;
  checker_.look(*core_);
  if (core_->is_leader() && std::exchange(led_term_, core_->term()) != core_->term()) {
    host_.trace(id(), "leads term " + std::to_string(core_->term()));
  }
  log_->flush();
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
  if (ready.token == 0) return;
  log_->write(ready);
  unsent_.emplace_back(ready.token, std::move(ready.messages_after));
}

void Raft_process::on_persisted(std::uint64_t token) {
  checker_.persisted(id(), token);
  while (!unsent_.empty() && unsent_.front().first <= token) {
    for (auto& message : unsent_.front().second) host_.send(std::move(message));
    unsent_.pop_front();
  }
  core_->persisted(token);
  turn();
}

void Raft_process::on_raft_log_failed(Failure const& why) { checker_.fail(why.text); }

bool Raft_process::rot() {
  bury();
  auto const names = disk_.list("raft");
  if (!names.has_value()) return false;
  std::vector<std::pair<std::string, std::uint64_t>> frames;
  auto sorted = names.value();
  std::sort(sorted.begin(), sorted.end());
  for (auto const& name : sorted) {
    auto const file = disk_.open("raft/" + name, {});
    std::vector<std::byte> content(file.value()->size().value());
    if (!file.value()->read(0, content).has_value()) return false;
    auto const header = decode_segment_header(content);
    if (!header.has_value()) return false;
    for (auto at = frame_alignment; at < content.size();) {
      std::uint64_t length = frame_alignment;
      auto const frame = decode_raft_frame(header.value().salt, Bytes(content).subspan(at), length);
      if (frame.has_value()) frames.emplace_back("raft/" + name, at);
      at += length;
    }
  }
  if (frames.size() < 3) return false;
  auto const& [name, at] = frames[1 + random_.below(frames.size() - 2)];
  disk_.flip(name, at + random_.below(raft_frame_header_bytes), 0x10);
  checker_.damaged(id());
  host_.trace(id(), "rots");
  return true;
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
  log_->cut(core_->log().base_index());
}

}  // namespace pstorage::mds::raft
