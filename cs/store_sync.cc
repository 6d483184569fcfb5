// Flushes and checkpoints: when chunk files are synced, and when the journal forgets.
#include <algorithm>

#include "core/crc32c.h"
#include "cs/store.h"

namespace pstorage::cs {
namespace {

constexpr std::size_t syncs_in_flight_max = 4;
constexpr std::uint64_t checkpoint_room_bytes = 64u << 20;
constexpr std::uint32_t seals_magic = 0x45535350;  // "PSSE"
constexpr std::size_t seals_header_bytes = 16;
constexpr std::size_t seal_bytes = 12;
constexpr char const* seals_name = "seals";
constexpr char const* seals_new_name = "seals.new";

}  // namespace

// ---------------------------------------------------------------- flush

void Store::start_flush(Flush_job job) {
  for (Chunk_id const id : large_unsynced_) {
    Chunk* const chunk = chunks_.find(id);
    if (chunk == nullptr || chunk->replica.file != job.file) continue;
    job.files.emplace_back(id, chunk->large_dirty ? chunk->next_sync() : chunk->syncs_started);
  }
  if (job.files.empty()) return job.done(Errc::ok);
  auto const files = job.files;
  file_flushes_.push_back(std::move(job));
  for (auto const& [id, sync] : files) {
    Chunk& chunk = *chunks_.find(id);
    if (sync > chunk.syncs_started) sync_file(chunk);
  }
}

void Store::check_file_flushes() {
  for (std::size_t i = 0; i < file_flushes_.size();) {
    auto& files = file_flushes_[i].files;
    std::erase_if(files, [this](auto const& entry) {
      Chunk* const chunk = chunks_.find(entry.first);
      return chunk == nullptr || chunk->removed || chunk->syncs_done >= entry.second;
    });
    if (!files.empty()) {
      ++i;
      continue;
    }
    Store_done const done = std::move(file_flushes_[i].done);
    file_flushes_.erase(file_flushes_.begin() + static_cast<std::ptrdiff_t>(i));
    done(Errc::ok);
    i = 0;  // done() may have changed the list
  }
}

void Store::sync_file(Chunk& chunk) {
  if (chunk.is_syncing_file()) {
    chunk.sync_again = true;  // the running one does not cover what came after its start
  } else {
    start_sync(chunk);
  }
}

void Store::start_sync(Chunk& chunk) {
  auto const file = chunks_.file_of(chunk);
  if (file.has_error()) {
    return fail("cannot open chunk " + std::to_string(chunk.id.value), file.error());
  }
  ++chunk.syncs_started;
  bool const covers_large = std::exchange(chunk.large_dirty, false);
  chunk.large_bytes = 0;
  auto const request = disk_watch_.begin(tick_time_);
  auto const began = clock_.now();
  Lsn const covered = covers_large ? chunk.large_placed : 0;
  file.value()->sync_async([this, &chunk, covered, request, began](Result<void> result) {
    disk_watch_.end(request);
    file_sync_times_.add(clock_.now() - began);
    file_synced(chunk, covered, result);
  });
}

// Replay takes a large write whose data does not fit its checksum for one that was torn or never
// arrived; of what has been synced it is damage. The record goes with the next commit.
void Store::note_synced(Chunk const& chunk, Lsn covered) {
  if (chunk.removed || !journal_->has_room(record_header_bytes)) return;
  Record record;
  record.type = Record_type::synced;
  record.chunk = chunk.id;
  record.stamp = {covered};
  journal_->append(record, {}, {});
}

void Store::file_synced(Chunk& chunk, Lsn covered, Result<void> const& result) {
  ++chunk.syncs_done;
  ++syncs_;
  if (result.has_error()) {
    // What the kernel could not write it has dropped; a second fsync would say all is well.
    return fail("cannot sync chunk " + std::to_string(chunk.id.value), result.error());
  }
  if (covered > journal_->tail()) note_synced(chunk, covered);
  if (covered != 0 && !chunk.large_dirty) {
    chunk.large_unsynced = false;
    large_unsynced_.erase(chunk.id);
    bool const waiting = std::ranges::count(chunk.large_sync, Chunk::not_in_place) != 0;
    if (!waiting) chunk.large_sync.clear();
  }
  if (std::exchange(chunk.sync_again, false) && !read_only_) start_sync(chunk);
  check_file_flushes();
  step_checkpoint(0);
}

// ---------------------------------------------------------------- checkpoint

void Store::want_checkpoint(Time_point now) {
  bool const has_work = journal_->durable() > journal_->tail() || chunks_.has_dirty();
  // Late, because what is written again before the checkpoint needs to be stored only once; early
  // enough for writing to go on meanwhile.
  std::uint64_t const ring = journal_->ring_bytes();
  std::uint64_t const room = std::max(ring / 4, std::min(ring / 2, checkpoint_room_bytes));
  bool const is_filling = journal_->used_bytes() > ring - room;
  bool const idle = now - last_write_ >= options_.idle_after;
  if (has_work && (is_filling || idle || pressed_ || stopping_)) checkpoint_wanted_ = true;
}

void Store::step_checkpoint(std::size_t blocks) {
  if (read_only_ || disk_full_) return;
  if (checkpoint_ == Checkpoint::none) {
    if (!checkpoint_wanted_) return;
    checkpoint_wanted_ = false;
    checkpoint_target_ = journal_->durable();
    checkpoint_ = Checkpoint::apply;
  }
  if (checkpoint_ == Checkpoint::apply) {
    // What the journal forgets to remove would come back after a crash.
    if (!removals_.empty() && removals_.front().lsn <= checkpoint_target_) return;
    if (!apply_upto(checkpoint_target_, blocks)) return;
    store_seals();
    if (read_only_ || disk_full_) return;
    for (Chunk* chunk : chunks_.dirty_chunks()) checkpoint_chunks_.push_back(chunk->id);
    checkpoint_ = Checkpoint::files;
  }
  if (checkpoint_ == Checkpoint::files) checkpoint_files();
  if (checkpoint_ == Checkpoint::directories) checkpoint_directories();
}

void Store::checkpoint_files() {
  std::erase_if(checkpoint_syncs_, [this](auto const& entry) {
    Chunk* const chunk = chunks_.find(entry.first);
    if (chunk == nullptr) return true;
    if (chunk->syncs_done < entry.second) return false;
    auto const stored = chunks_.stored(*chunk, journal_->durable());
    if (stored.has_error()) apply_failed(*chunk, stored.error());
    return true;
  });
  while (!checkpoint_chunks_.empty() && checkpoint_syncs_.size() < syncs_in_flight_max) {
    Chunk* const chunk = find(checkpoint_chunks_.back());
    checkpoint_chunks_.pop_back();
    if (chunk == nullptr) continue;
    auto const stored = chunks_.store(*chunk, journal_->durable());
    if (stored.has_error()) {
      // Dirty again, and the checkpoint is not finished without it.
      chunks_.mark_dirty(*chunk);
      checkpoint_chunks_.push_back(chunk->id);
      return apply_failed(*chunk, stored.error());
    }
    checkpoint_syncs_[chunk->id] = chunk->next_sync();
    sync_file(*chunk);
    if (read_only_) return;
  }
  if (std::exchange(seals_stored_, false)) seals_file_.reset();
  if (!checkpoint_chunks_.empty() || !checkpoint_syncs_.empty() || seals_file_) return;
  checkpoint_ = Checkpoint::directories;
  auto const directories = chunks_.take_dirty_directories();
  checkpoint_directories_ = directories.size();
  for (std::string const& directory : directories) {
    disk_.sync_directory_async(directory,
                               [this, alive = std::weak_ptr<bool>(alive_)](Result<void> result) {
                                 if (alive.expired()) return;
                                 --checkpoint_directories_;
                                 if (result.has_error())
                                   return fail("cannot sync a directory", result.error());
                                 step_checkpoint(0);
                               });
  }
}

void Store::checkpoint_directories() {
  if (checkpoint_directories_ != 0) return;
  checkpoint_ = Checkpoint::none;
  if (checkpoint_target_ > journal_->tail()) {
    journal_->set_tail(checkpoint_target_);
    journal_->commit();
  }
  if (on_progress_) on_progress_();
}

// ---------------------------------------------------------------- seals

Result<void> Store::write_seals() {
  std::vector<std::byte> bytes(seals_header_bytes + seals_.size() * seal_bytes);
  store_le(bytes.data(), seals_magic);
  store_le(bytes.data() + 8, std::uint64_t{seals_.size()});
  std::byte* to = bytes.data() + seals_header_bytes;
  for (auto const& [file, epoch] : seals_) {
    store_le(to, file.value);
    store_le(to + 8, epoch.value);
    to += seal_bytes;
  }
  store_le(bytes.data() + 4, crc32c(Bytes(bytes).subspan(8)));
  PS_TRY(seals_file_, disk_.open(seals_new_name, Open_mode{.create = true}));
  PS_CHECK(seals_file_->truncate(0));
  return seals_file_->write(0, Bytes(bytes));
}

void Store::store_seals() {
  if (!std::exchange(seals_dirty_, false)) return;
  auto const result = write_seals();
  if (result.has_error() && errc_of(result.error()) == Errc::no_space) {
    seals_dirty_ = true;
    seals_file_.reset();
    disk_full_ = true;
    return;
  }
  if (result.has_error()) return fail("cannot write the seals", result.error());
  seals_file_->sync_async([this](Result<void> synced) {
    if (synced.has_value()) synced = disk_.rename(seals_new_name, seals_name);
    if (synced.has_error()) return fail("cannot write the seals", synced.error());
    chunks_.add_dirty_directory("");
    seals_stored_ = true;
  });
}

Result<void> Store::store_seals_blocking() {
  if (!std::exchange(seals_dirty_, false)) return success();
  PS_CHECK(write_seals());
  PS_CHECK(seals_file_->sync());
  seals_file_.reset();
  chunks_.add_dirty_directory("");
  return disk_.rename(seals_new_name, seals_name);
}

Result<void> Store::load_seals() {
  if (!disk_.exists(seals_name)) return success();
  PS_TRY(auto const file, disk_.open(seals_name, {}));
  PS_TRY(auto const size, file->size());
  if (size < seals_header_bytes || (size - seals_header_bytes) % seal_bytes != 0) {
    return Errc::corrupt;
  }
  std::vector<std::byte> bytes(size);
  PS_CHECK(file->read(0, bytes));
  std::uint64_t const count = (size - seals_header_bytes) / seal_bytes;
  if (load_le<std::uint32_t>(bytes.data()) != seals_magic ||
      load_le<std::uint32_t>(bytes.data() + 4) != crc32c(Bytes(bytes).subspan(8)) ||
      load_le<std::uint64_t>(bytes.data() + 8) != count) {
    return Errc::corrupt;
  }
  for (std::byte const* from = bytes.data() + seals_header_bytes;
       from != bytes.data() + bytes.size(); from += seal_bytes) {
    seals_[{load_le<std::uint64_t>(from)}] = {load_le<std::uint32_t>(from + 8)};
  }
  return success();
}

// ---------------------------------------------------------------- stop

void Store::step_stop() {
  if (!stop_done_) return;
  if (read_only_) {
    std::exchange(stop_done_, nullptr)(Errc::read_only);
    return;
  }
  if (journal_->appended() > journal_->durable() || journal_->is_committing()) {
    journal_->commit();
    return;
  }
  bool const settled = apply_queue_.empty() && !chunks_.has_dirty() && !seals_dirty_ &&
                       removals_.empty() && checkpoint_ == Checkpoint::none &&
                       journal_->tail() == journal_->appended();
  if (!settled) {
    checkpoint_wanted_ = checkpoint_wanted_ || checkpoint_ == Checkpoint::none;
    return;
  }
  auto const result = journal_->mark_clean();
  std::exchange(stop_done_, nullptr)(result.has_value() ? Errc::ok : Errc::io_error);
}

}  // namespace pstorage::cs
