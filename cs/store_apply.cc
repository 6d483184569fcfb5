// Applying: what is durable in the journal moves into the chunk files and their tables.
#include <algorithm>
#include <array>
#include <span>

#include "core/crc32c.h"
#include "cs/store.h"

namespace pstorage::cs {
namespace {

enum class Target { data, hole, table };

Target target_of(Staged const& entry) {
  switch (entry.kind) {
    case Staged_kind::data:
    case Staged_kind::large:
    case Staged_kind::journal:
      return Target::data;
    case Staged_kind::hole:
      return Target::hole;
    default:
      return Target::table;
  }
}

}  // namespace

std::size_t Store::collect_ready(Page& page, Lsn durable) {
  Staged_page& staged = *page.staged;
  std::size_t count = 0;
  for (std::size_t block = staged.present._Find_first(); block < page_blocks;
       block = staged.present._Find_next(block)) {
    Staged* newer = nullptr;
    Staged* entry = staged.newest[block];
    while (entry != nullptr && entry->lsn > durable) {
      newer = entry;
      entry = entry->older;
    }
    if (entry != nullptr) ready_[count++] = {static_cast<std::uint32_t>(block), entry, newer};
  }
  return count;
}

// Replay keeps blocks in the journal until they are applied; memory stays bounded that way.
Result<void> Store::load_from_journal(std::size_t first, std::size_t count) {
  for (std::size_t i = first; i < first + count; ++i) {
    Staged& entry = *ready_[i].entry;
    if (entry.kind != Staged_kind::journal) continue;
    entry.data = Slice::allocate(block_bytes);
    PS_CHECK(journal_->read_data(entry.journal_at, entry.data.mutable_bytes()));
    if (crc32c(entry.data.bytes()) != entry.record.crc) return Errc::io_error;
    staged_bytes_ += block_bytes;
    entry.kind = Staged_kind::data;
  }
  return success();
}

Result<void> Store::apply_run(Page& page, std::size_t first, std::size_t count) {
  Chunk& chunk = page.chunk;
  PS_TRY(File* const file, chunks_.file_of(chunk));
  Target const target = target_of(*ready_[first].entry);
  std::uint64_t const at = data_offset(chunk.replica.chunk_size) +
                           std::uint64_t{page.index} * page_span_bytes +
                           std::uint64_t{ready_[first].block} * block_bytes;
  if (target == Target::data) {
    PS_CHECK(load_from_journal(first, count));
    std::array<Bytes, page_blocks> parts;
    std::size_t used = 0;
    for (std::size_t i = first; i < first + count; ++i) {
      Bytes const bytes = ready_[i].entry->data.bytes();
      if (used != 0 && parts[used - 1].data() + parts[used - 1].size() == bytes.data()) {
        parts[used - 1] = {parts[used - 1].data(), parts[used - 1].size() + bytes.size()};
      } else {
        parts[used++] = bytes;
      }
    }
    PS_CHECK(file->write(at, std::span<Bytes const>(parts.data(), used)));
  } else if (target == Target::hole) {
    PS_CHECK(file->punch_hole(at, std::uint64_t{count} * block_bytes));
  }
  for (std::size_t i = first; i < first + count; ++i) finish_block(page, ready_[i]);
  return success();
}

void Store::release_chain(Staged* entry) {
  while (entry != nullptr) {
    Staged* const older = entry->older;
    staged_bytes_ -= sizeof(Staged) + entry->data.size();
    staged_pool_.give_back(entry);
    entry = older;
  }
}

void Store::finish_block(Page& page, Ready const& ready) {
  (*page.table)[ready.block] = ready.entry->record;
  page.chunk.applied_stamp = std::max(page.chunk.applied_stamp, ready.entry->writer_stamp);
  Staged_page& staged = *page.staged;
  if (ready.newer != nullptr) {
    ready.newer->older = nullptr;
  } else {
    staged.newest[ready.block] = nullptr;
    staged.present.reset(ready.block);
    --staged.count;
  }
  release_chain(ready.entry);
}

void Store::settle_page(Page& page) {
  page.to_apply.unlink();
  Staged_page& staged = *page.staged;
  if (staged.count == 0) {
    spare_pages_.push_back(std::move(page.staged));
    return;
  }
  Lsn oldest = ~Lsn{0};
  for (std::size_t block = staged.present._Find_first(); block < page_blocks;
       block = staged.present._Find_next(block)) {
    for (Staged* entry = staged.newest[block]; entry != nullptr; entry = entry->older) {
      oldest = std::min(oldest, entry->lsn);
    }
  }
  staged.oldest = oldest;
  apply_queue_.push_back(page);
}

Result<std::size_t> Store::apply_page(Page& page, Lsn durable, bool blocking) {
  std::size_t const count = collect_ready(page, durable);
  if (count == 0) {
    settle_page(page);
    return std::size_t{0};
  }
  switch (chunks_.load_table(page, blocking)) {
    case Chunk_store::Load::ready:
      break;
    case Chunk_store::Load::loading:
      return std::size_t{0};
    case Chunk_store::Load::failed:
      return Errc::io_error;
  }
  page.dirty = true;
  page.by_use.unlink();  // a dirty table is not dropped
  ++page.chunk.changes;
  chunks_.mark_dirty(page.chunk);
  for (std::size_t first = 0; first < count;) {
    Target const target = target_of(*ready_[first].entry);
    std::size_t last = first + 1;
    while (last < count && ready_[last].block == ready_[last - 1].block + 1 &&
           target_of(*ready_[last].entry) == target) {
      ++last;
    }
    auto const result = apply_run(page, first, last - first);
    if (result.has_error()) {
      settle_page(page);
      return result.error();
    }
    first = last;
  }
  settle_page(page);
  return count;
}

void Store::apply_failed(Chunk& chunk, std::error_code error) {
  if (errc_of(error) != Errc::no_space) {
    return fail("cannot write chunk " + std::to_string(chunk.id.value), error);
  }
  // The journal keeps it; tried again when the free space has been asked for again.
  if (!disk_full_) {
    log_.error("the disk is full: free some space, this chunk server cannot go on without");
  }
  disk_full_ = true;
}

std::size_t Store::apply_some(std::size_t blocks) {
  std::size_t done = 0;
  std::size_t idle = 0;  // pages in a row that could not be applied now
  Lsn const durable = journal_->durable();
  while (done < blocks && idle < 16 && !apply_queue_.empty() && !disk_full_ && !read_only_) {
    Page& page = apply_queue_.front();
    if (page.staged->oldest > durable) break;
    Chunk& chunk = page.chunk;
    auto const applied = apply_page(page, durable, false);
    if (applied.has_error()) {
      apply_failed(chunk, applied.error());
      break;
    }
    idle = applied.value() == 0 ? idle + 1 : 0;
    if (applied.value() == 0 && page.to_apply.is_linked()) {  // its table is being loaded
      page.to_apply.unlink();
      apply_queue_.push_back(page);
    }
    done += applied.value();
  }
  if (done != 0 && chunks_.trim_tables()) checkpoint_wanted_ = true;
  return done;
}

// For a checkpoint: true when nothing up to `target` is staged any more.
bool Store::apply_upto(Lsn target, std::size_t blocks) {
  std::size_t done = 0;
  bool complete = true;
  Lsn const durable = journal_->durable();
  for (auto it = apply_queue_.begin(); it != apply_queue_.end() && !disk_full_ && !read_only_;) {
    Page& page = *it++;
    if (page.staged->oldest > target) continue;
    if (done >= blocks) return false;
    Chunk& chunk = page.chunk;
    auto const applied = apply_page(page, durable, false);
    if (applied.has_error()) {
      apply_failed(chunk, applied.error());
      return false;
    }
    // Moved to the end of the queue with what is not durable yet; then it is met again, harmlessly.
    if (page.staged && page.staged->oldest <= target) complete = false;
    done += applied.value();
  }
  return complete && !disk_full_ && !read_only_;
}

void Store::apply_large() {
  put_large_in_place();
  while (!flushes_.empty() && flushes_.front().lsn <= std::min(journal_->durable(), large_done())) {
    Flush_job job = std::move(flushes_.front());
    flushes_.pop_front();
    start_flush(std::move(job));
  }
}

void Store::put_large_in_place() {
  while (!large_.empty() && large_.front().lsn <= journal_->durable()) {
    Large const large = large_.front();
    Chunk* const chunk = find(large.chunk);
    if (chunk != nullptr) {
      std::uint32_t const last = (large.first_block + large.blocks - 1) / page_blocks;
      for (std::uint32_t index = large.first_block / page_blocks; index <= last; ++index) {
        Page& page = chunks_.page_of(*chunk, index);
        if (!page.staged || page.staged->oldest > journal_->durable()) continue;
        if (disk_full_ || read_only_) return;
        auto const applied = apply_page(page, journal_->durable(), false);
        if (applied.has_error()) return apply_failed(*chunk, applied.error());
        if (applied.value() == 0 && page.loading) return;
      }
      // A flush will sync the file, not its directory entry.
      if (!chunk->name_durable) return sync_name(*chunk);
      mark_in_place(*chunk, large);
    }
    large_.pop_front();
  }
}

void Store::mark_in_place(Chunk& chunk, Large const& large) {
  chunk.large_dirty = chunk.large_unsynced = true;
  chunk.large_placed = large.lsn;
  large_unsynced_.insert(chunk.id);
  if (chunk.large_sync.empty()) return;  // all of it has been superseded through the journal
  for (std::uint32_t i = 0; i < large.blocks; ++i) {
    auto& sync = chunk.large_sync[large.first_block + i];
    if (sync == Chunk::not_in_place) sync = chunk.next_sync();
  }
  chunk.large_bytes += std::uint64_t{large.blocks} * block_bytes;
  if (chunk.large_bytes >= options_.large_sync_bytes) sync_file(chunk);
}

void Store::sync_name(Chunk& chunk) {
  if (chunk.name_syncs != 0) return;
  for (std::string const& directory : {chunk_directory(chunk.id), std::string("chunks")}) {
    ++chunk.name_syncs;
    ++chunk.io_in_flight;
    disk_.sync_directory_async(
        directory, [this, &chunk, alive = std::weak_ptr<bool>(alive_)](Result<void> result) {
          if (alive.expired()) return;
          --chunk.io_in_flight;
          if (result.has_error()) return fail("cannot sync a directory", result.error());
          if (--chunk.name_syncs != 0) return;
          chunk.name_durable = true;
          apply_large();
          if (on_progress_) on_progress_();
        });
  }
}

}  // namespace pstorage::cs
