#include "cs/store.h"

#include <algorithm>

#include "cs/recovery.h"

namespace pstorage::cs {
namespace {

constexpr std::uint64_t reserve_min = 64u << 20;
constexpr std::uint64_t reserve_max = 1u << 30;
constexpr Duration space_interval = std::chrono::seconds(1);
// Per tick (10 ms): bounded, so that a request never waits long behind housekeeping.
constexpr std::size_t blocks_a_tick = 128;
constexpr std::size_t blocks_pressed = 8192;
// A journal record beside its data.
constexpr std::size_t record_overhead = record_header_bytes + body_bytes_max;
constexpr char const* probe_name = "probe";

}  // namespace

Store::Store(Clock& clock, Disk& disk, Disk& journal_disk, Log& log, Store_options options)
    : clock_(clock),
      disk_(disk),
      journal_disk_(journal_disk),
      log_(log),
      options_(std::move(options)),
      chunks_(disk, log, options_.chunks),
      probe_(
          disk, probe_name, [this] { probe_began(); }, [this](bool ok) { probe_ended(ok); }) {
  chunks_.set_on_loaded([this] {
    apply_large();
    step_reads();
    if (on_progress_) on_progress_();
  });
}

Store::~Store() = default;

Outcome<void> Store::start() {
  Recovery recovery(*this);
  PS_CHECK(recovery.run());
  journal_->set_listener(this);
  tick_time_ = last_write_ = last_commit_ = clock_.now();
  refresh_space();
  started_ = true;
  return success();
}

// ---------------------------------------------------------------- chunks

Result<Chunk*> Store::load(Chunk_id id) {
  if (removing_.contains(id)) return Errc::not_found;
  return chunks_.load(id);
}

Result<Chunk*> Store::create(Chunk_id id, File_id file, std::uint32_t chunk_size, Version version) {
  if (read_only_) return Errc::read_only;
  if (removing_.contains(id) || !has_room(0)) return Errc::unavailable;
  if (!is_chunk_size(chunk_size)) return Errc::bad_request;
  if (!has_space(page_bytes)) {
    refresh_space();
    if (!has_space(page_bytes)) return Errc::no_space;
  }
  Record record;
  record.type = Record_type::open;
  record.flags = record_create;
  record.chunk = id;
  record.file = file;
  record.length = chunk_size;
  record.version = version;
  Lsn const lsn = journal_->append(record, {}, {});
  auto const made = chunks_.create(id, file, chunk_size, version, lsn);
  if (made.has_error()) {
    record = Record{};
    record.type = Record_type::remove;
    record.chunk = id;
    journal_->append(record, {}, {});
  }
  return made;
}

void Store::append_open(Chunk& chunk, std::uint16_t flags, Stamp stamp) {
  Record record;
  record.type = Record_type::open;
  record.flags = static_cast<std::uint16_t>(flags | (chunk.replica.syncing ? record_syncing : 0));
  record.chunk = chunk.id;
  record.file = chunk.replica.file;
  record.stamp = stamp;
  record.length = chunk.replica.chunk_size;
  record.version = chunk.replica.version;
  journal_->append(record, {}, {});
  chunks_.mark_dirty(chunk);
}

void Store::record_open(Chunk& chunk) { append_open(chunk, 0, {}); }

void Store::record_synced(Chunk& chunk, Stamp highest) {
  chunk.replica.synced(highest);
  // Not yet durable, and need not be: until the MDS has been told, the replica does not count.
  chunk.applied_stamp = chunk.replica.last_stamp;
  append_open(chunk, record_completes_sync, chunk.replica.last_stamp);
}

void Store::remove(Chunk_id id, Store_done done) {
  if (read_only_) return done(Errc::read_only);
  if (!removing_.contains(id) && !chunks_.names().contains(id)) return done(Errc::ok);
  if (!has_room(0)) return done(Errc::unavailable);
  Record record;
  record.type = Record_type::remove;
  record.chunk = id;
  Lsn const lsn = journal_->append(record, {}, {});
  if (Chunk* chunk = chunks_.find(id)) {
    chunk->removed = true;
    drop_staged(*chunk);
  }
  removing_.insert(id);
  removals_.push_back({lsn, id, std::move(done)});
  commit_wanted_ = true;
  step_reads();
}

void Store::carry_out_removals() {
  for (auto it = removals_.begin(); it != removals_.end();) {
    Chunk* const chunk = chunks_.find(it->chunk);
    bool const busy = chunk != nullptr && (chunk->io_in_flight != 0 || chunk->is_syncing_file());
    if (it->lsn > journal_->durable() || busy) {
      ++it;
      continue;
    }
    Removal removal = std::move(*it);
    it = removals_.erase(it);
    large_unsynced_.erase(removal.chunk);
    auto const result = chunks_.remove(removal.chunk);
    removing_.erase(removal.chunk);
    if (result.has_error()) fail("cannot remove a chunk file", result.error());
    removal.done(result.has_value() ? Errc::ok : Errc::read_only);
    it = removals_.begin();  // done() may have changed the list
  }
}

void Store::drop_staged(Chunk& chunk) {
  for (auto& page : chunk.pages) {
    if (!page || !page->staged) continue;
    for (Staged* newest : page->staged->newest) release_chain(newest);
    page->staged.reset();
    page->to_apply.unlink();
  }
}

void Store::seal(File_id file, Epoch epoch, Store_done done) {
  if (read_only_) return done(Errc::read_only);
  if (!has_room(0)) return done(Errc::unavailable);
  PS_ASSERT(epoch >= seal_of(file));
  seals_[file] = epoch;
  seals_dirty_ = true;
  Record record;
  record.type = Record_type::seal;
  record.file = file;
  record.stamp = Stamp::of(epoch, 0);
  when_durable(journal_->append(record, {}, {}), std::move(done));
}

void Store::when_durable(Lsn lsn, Store_done done) {
  durable_jobs_.push_back({lsn, std::move(done)});
  commit_wanted_ = true;
}

// ---------------------------------------------------------------- space

void Store::refresh_space() {
  auto const space = disk_.space();
  if (space.has_error()) return;  // the old figure stays; the next write will tell
  space_ = space.value();
  taken_since_space_ = staged_bytes_;  // accepted, but the file system does not know yet
  reserve_bytes_ = options_.reserve_bytes != 0
                       ? options_.reserve_bytes
                       : std::clamp(space_.total_bytes / 100, reserve_min, reserve_max);
}

bool Store::has_space(std::uint64_t bytes) const {
  std::uint64_t const needed = reserve_bytes_ + taken_since_space_ + bytes;
  return !disk_full_ && space_.free_bytes >= needed;
}

Errc Store::admit(Chunk& chunk, std::uint32_t offset, std::uint32_t length) {
  if (read_only_) return Errc::read_only;
  if (has_space(length)) [[likely]]
    return Errc::ok;
  refresh_space();
  if (has_space(length)) return Errc::ok;
  // Below the reserve only what takes no new space: overwriting what is there.
  for (std::uint32_t at = 0; at < length; at += block_bytes) {
    std::uint32_t const block = (offset + at) / block_bytes;
    Page& page = chunks_.page_of(chunk, block / page_blocks);
    if (chunks_.load_table(page, true) != Chunk_store::Load::ready) return Errc::io_error;
    if (((*page.table)[block % page_blocks].flags & block_hole) != 0) return Errc::no_space;
  }
  return Errc::ok;
}

bool Store::has_room(std::size_t bytes) {
  bool const memory = staged_bytes_ == 0 || staged_bytes_ + bytes <= options_.staged_bytes_max;
  // As if all of it went through the journal: large writes sometimes do.
  bool const journal = journal_->has_room(record_overhead + bytes + bytes / 64);
  if (!memory || !journal) pressed_ = true;
  return memory && journal;
}

std::size_t Store::request_bytes_max() const {
  return std::min<std::size_t>(data_bytes_max, journal_->ring_bytes() / 3);
}

// ---------------------------------------------------------------- rhythm

Errc Store::end_turn() {
  if (read_only_) return Errc::read_only;
  if (journal_->write_out().has_error()) return Errc::read_only;
  if (journal_->uncommitted_bytes() >= options_.commit_bytes) commit_wanted_ = true;
  if (commit_wanted_) {
    commit_wanted_ = false;
    last_commit_ = clock_.now();
    if (!journal_->is_committing()) commit_started_ = last_commit_;
    journal_->commit();
  }
  if (read_only_) return Errc::read_only;
  if (turn_blocks_ != 0) {
    last_write_ = tick_time_;
    std::size_t const blocks = std::exchange(turn_blocks_, 0);
    // Apply keeps pace with writing once enough is staged for neighbours to meet.
    if (staged_bytes_ > options_.apply_above_bytes) apply_some(2 * blocks);
    if (checkpoint_ != Checkpoint::none) step_checkpoint(2 * blocks);
  }
  return Errc::ok;
}

void Store::want_commits(Time_point now) {
  bool const uncommitted = journal_->appended() > journal_->frozen();
  if (uncommitted && (now - last_commit_ >= options_.commit_interval || pressed_)) {
    commit_wanted_ = true;
  }
}

void Store::on_tick() {
  Time_point const now = tick_time_ = clock_.now();
  // By its own clock: requests that find no room ask in between, without end.
  if (now - last_space_ >= space_interval) {
    last_space_ = now;
    refresh_space();
    disk_full_ = false;
  }
  if (read_only_) {
    if (stopping_) step_stop();
    return;
  }
  want_commits(now);
  probe_.on_tick(now);
  if (end_turn() != Errc::ok) return;
  if (pressed_) {
    apply_some(blocks_pressed);
  } else if (staged_bytes_ > options_.apply_above_bytes) {
    apply_some(blocks_a_tick);
  }
  apply_large();
  want_checkpoint(now);
  step_checkpoint(pressed_ || stopping_ ? blocks_pressed : blocks_a_tick);
  carry_out_removals();
  chunks_.trim_files();
  if (stopping_) step_stop();
  if (std::exchange(pressed_, false) && on_progress_) on_progress_();
}

void Store::on_durable(Lsn durable) {
  ++syncs_;
  Time_point const now = clock_.now();
  Duration const took = now - std::exchange(commit_started_, now);
  latency_.add(now, took);
  commits_.add(took);
  while (!durable_jobs_.empty() && durable_jobs_.front().lsn <= durable) {
    Store_done const done = std::move(durable_jobs_.front().done);
    durable_jobs_.pop_front();
    done(Errc::ok);
  }
  apply_large();
  if (pressed_) apply_some(blocks_pressed);
  carry_out_removals();
  if (checkpoint_ != Checkpoint::none) step_checkpoint(stopping_ ? blocks_pressed : blocks_a_tick);
  if (stopping_) step_stop();
  if (on_progress_) on_progress_();
}

Duration Store::stalled(Time_point now) const {
  Duration const files = disk_watch_.stalled(now);
  return journal_->is_committing() ? std::max(files, now - commit_started_) : files;
}

void Store::probe_began() {
  probe_began_ = clock_.now();
  probe_request_ = disk_watch_.begin(probe_began_);
  // The journal may be on a disk of its own.
  if (!journal_->is_committing()) commit_started_ = probe_began_;
  journal_->probe();
}

void Store::probe_ended(bool ok) {
  disk_watch_.end(probe_request_);
  Time_point const now = clock_.now();
  latency_.add(now, now - probe_began_);
  if (ok) return;
  fail("cannot write the file " + std::string(probe_name), make_error_code(Errc::io_error));
}

void Store::on_journal_failed(std::error_code error) { fail("journal", error); }

void Store::fail(std::string const& what, std::error_code error) {
  if (read_only_) return;
  read_only_ = true;
  read_only_reason_ = what + ": " + error.message();
  log_.error("the repository takes no more writes: " + read_only_reason_ +
             "; check the disk, then restart csd or replace this chunk server");
  // Taken out first: an answered request may bring the next one.
  auto jobs = std::move(durable_jobs_);
  auto flushes = std::move(flushes_);
  auto file_flushes = std::move(file_flushes_);
  durable_jobs_.clear();
  flushes_.clear();
  file_flushes_.clear();
  for (auto& job : jobs) job.done(Errc::read_only);
  for (auto& job : flushes) job.done(Errc::io_error);
  for (auto& job : file_flushes) job.done(Errc::io_error);
  auto removals = std::move(removals_);
  removals_.clear();
  for (auto& removal : removals) removal.done(Errc::read_only);
  if (on_progress_) on_progress_();
}

void Store::stop(Store_done done) {
  stopping_ = true;
  stop_done_ = std::move(done);
  step_stop();
}

}  // namespace pstorage::cs
