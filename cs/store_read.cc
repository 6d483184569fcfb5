// Reading: newest staged content first, then the chunk file, verified against its table.
#include <algorithm>
#include <cstring>

#include "core/crc32c.h"
#include "cs/store.h"

namespace pstorage::cs {
namespace {

// A chunk that is written all the time changes under an asynchronous read; then it blocks instead.
constexpr unsigned read_tries_max = 3;

}  // namespace

Chunk_store::Load Store::load_tables(Chunk& chunk, std::uint32_t first, std::uint32_t blocks) {
  auto worst = Chunk_store::Load::ready;
  std::uint32_t const last = (first + blocks - 1) / page_blocks;
  for (std::uint32_t index = first / page_blocks; index <= last; ++index) {
    Page& page = chunks_.page_of(chunk, index);
    auto const load = chunks_.load_table(page, false);
    if (load == Chunk_store::Load::failed) return load;
    if (load == Chunk_store::Load::loading) worst = load;
    chunks_.use_page(page);
  }
  return worst;
}

Block_record const& Store::table_entry(Chunk& chunk, std::uint32_t block) {
  return (*chunk.pages[block / page_blocks]->table)[block % page_blocks];
}

Block_record Store::block_record(Chunk& chunk, std::uint32_t block) {
  if (Staged const* staged = chunk.staged_block(block)) return staged->record;
  Page& page = chunks_.page_of(chunk, block / page_blocks);
  if (chunks_.load_table(page, true) != Chunk_store::Load::ready) return {0, 0, block_corrupt};
  return (*page.table)[block % page_blocks];
}

// Blocks whose content lies in the chunk file, one behind the other.
Result<void> Store::read_run(Chunk& chunk, std::uint32_t first, std::uint32_t blocks,
                             Bytes file_copy, Mutable_bytes to, Block_record* records) {
  if (!file_copy.empty()) {
    std::memcpy(to.data(), file_copy.data(), to.size());
  } else {
    PS_TRY(File* const file, chunks_.file_of(chunk));
    std::uint64_t const at =
        data_offset(chunk.replica.chunk_size) + std::uint64_t{first} * block_bytes;
    PS_CHECK(file->read_cached(at, to));
  }
  for (std::uint32_t i = 0; i < blocks; ++i) {
    if (crc32c(to.subspan(std::size_t{i} * block_bytes, block_bytes)) != records[i].crc) {
      records[i].flags = block_corrupt;  // rot, also of one that was torn before
    }
  }
  return success();
}

// Fills `to` and records_[0, blocks) with what the replica holds from block `first` on. Errors:
// would_block, the disk's. `file_copy`: what the chunk file holds there, if it has been read.
Result<void> Store::gather(Chunk& chunk, std::uint32_t first, std::uint32_t blocks, Bytes file_copy,
                           Mutable_bytes to) {
  std::uint32_t run = 0;  // blocks up to here, not yet copied, lie in the file
  auto const read_up_to = [&](std::uint32_t end) -> Result<void> {
    std::uint32_t const begin = end - run;
    std::size_t const at = std::size_t{begin} * block_bytes;
    std::size_t const size = std::size_t{run} * block_bytes;
    std::uint32_t const count = std::exchange(run, 0);
    if (count == 0) return success();
    Bytes const copy = file_copy.empty() ? file_copy : file_copy.subspan(at, size);
    return read_run(chunk, first + begin, count, copy, to.subspan(at, size), &records_[begin]);
  };
  for (std::uint32_t i = 0; i < blocks; ++i) {
    std::byte* const block = to.data() + std::size_t{i} * block_bytes;
    Staged const* const staged = chunk.staged_block(first + i);
    records_[i] = staged != nullptr ? staged->record : table_entry(chunk, first + i);
    bool const is_empty = !has_data(records_[i]);
    if (staged == nullptr && !is_empty) {
      ++run;
      continue;
    }
    PS_CHECK(read_up_to(i));
    if (is_empty) {
      std::memset(block, 0, block_bytes);
    } else {
      std::memcpy(block, staged->data.data(), block_bytes);
    }
  }
  return read_up_to(blocks);
}

void Store::finish_read(Read_kind kind, std::uint32_t offset, std::uint32_t blocks, Slice data,
                        Read_result& result) {
  if (kind == Read_kind::pull) {
    result.meta = pool_.take(blocks * sizeof(Block_record));
    std::memcpy(result.meta.data(), records_.data(), result.meta.size());
    std::size_t kept = 0;
    for (std::uint32_t i = 0; i < blocks; ++i) {
      if (!has_data(records_[i])) continue;
      if (kept != i) {
        std::memcpy(data.data() + kept * block_bytes, data.data() + std::size_t{i} * block_bytes,
                    block_bytes);
      }
      ++kept;
    }
    result.data = data.part(0, kept * block_bytes);
    return;
  }
  result.meta = pool_.take(blocks * sizeof(std::uint32_t));
  for (std::uint32_t i = 0; i < blocks; ++i) {
    store_le(result.meta.data() + i * sizeof(std::uint32_t), records_[i].crc);
    if ((records_[i].flags & block_corrupt) == 0) continue;
    result.status = Errc::corrupt;
    result.bad_offset = offset + i * block_bytes;
    result.meta = {};
    return;
  }
  result.data = std::move(data);
}

Store::Fill Store::fill(Chunk& chunk, Read_kind kind, std::uint32_t offset, std::uint32_t length,
                        Bytes file_copy, Read_result& result) {
  std::uint32_t const first = offset / block_bytes;
  std::uint32_t const blocks = length / block_bytes;
  if (kind == Read_kind::read && blocks == 1) {
    Staged const* const staged = chunk.staged_block(first);
    bool const is_good = staged != nullptr && (staged->record.flags & block_corrupt) == 0;
    if (is_good && !staged->data.empty()) {  // as it was received, no copy
      result.meta = pool_.take(sizeof(std::uint32_t));
      store_le(result.meta.data(), staged->record.crc);
      result.data = staged->data;
      return Fill::done;
    }
  }
  auto const load = load_tables(chunk, first, blocks);
  if (load == Chunk_store::Load::loading) return Fill::table_miss;
  if (load == Chunk_store::Load::failed) {
    result.status = Errc::io_error;
    return Fill::done;
  }
  if (kind == Read_kind::table) {
    result.meta = pool_.take(blocks * sizeof(Block_record));
    for (std::uint32_t i = 0; i < blocks; ++i) {
      Staged const* const staged = chunk.staged_block(first + i);
      store_le(result.meta.data() + i * sizeof(Block_record),
               staged != nullptr ? staged->record : table_entry(chunk, first + i));
    }
    return Fill::done;
  }
  if (records_.size() < blocks) records_.resize(blocks);
  Slice data = pool_.take(length);
  auto const gathered = gather(chunk, first, blocks, file_copy, data.mutable_bytes());
  if (gathered.has_error()) {
    Errc const why = errc_of(gathered.error());
    if (why == Errc::would_block) return Fill::data_miss;
    result.status = Errc::io_error;
    return Fill::done;
  }
  finish_read(kind, offset, blocks, std::move(data), result);
  return Fill::done;
}

bool Store::try_read(Chunk& chunk, Read_kind kind, std::uint32_t offset, std::uint32_t length,
                     Read_result& result) {
  return fill(chunk, kind, offset, length, {}, result) == Fill::done;
}

Result<void> Store::accept_torn(Chunk& chunk, std::uint32_t block, Stamp stamp) {
  Block_record record = block_record(chunk, block);
  // Rot is never made good by signing it.
  if ((record.flags & block_torn) == 0) return Errc::corrupt;
  Staged const* const staged = chunk.staged_block(block);
  Slice data = staged != nullptr ? staged->data : Slice::allocate(block_bytes);
  if (staged == nullptr) {
    PS_TRY(File* const file, chunks_.file_of(chunk));
    std::uint64_t const at =
        data_offset(chunk.replica.chunk_size) + std::uint64_t{block} * block_bytes;
    PS_CHECK(file->read(at, data.mutable_bytes()));
  }
  if (crc32c(data.bytes()) != record.crc) return Errc::corrupt;
  record = {stamp.value, record.crc, 0};
  repair(chunk, block * block_bytes, {&record, 1}, data);
  return success();
}

// ---------------------------------------------------------------- from the disk

void Store::read_async(Chunk_id chunk, Read_kind kind, std::uint32_t offset, std::uint32_t length,
                       std::function<void(Read_result&)> done) {
  auto job = std::make_unique<Read_job>();
  job->chunk = chunk;
  job->kind = kind;
  job->offset = offset;
  job->length = length;
  job->done = std::move(done);
  reads_.push_back(std::move(job));
  step_reads();
}

void Store::start_disk_read(Read_job& job, Chunk& chunk) {
  auto const file = chunks_.file_of(chunk);
  if (file.has_error()) return;
  if (job.file_copy.size() != job.length) job.file_copy = pool_.take(job.length);
  std::uint64_t const at = data_offset(chunk.replica.chunk_size) + job.offset;
  job.changes = chunk.changes;
  job.on_disk = true;
  job.request = disk_watch_.begin(tick_time_);
  ++chunk.io_in_flight;
  file.value()->read_async(at, job.file_copy.mutable_bytes(),
                           [this, &job, &chunk](Result<void> result) {
                             --chunk.io_in_flight;
                             job.on_disk = false;
                             disk_watch_.end(job.request);
                             job.has_copy = result.has_value();
                             job.has_failed = result.has_error();
                             step_reads();
                           });
}

// True when the job has its result.
bool Store::step_read(Read_job& job, Read_result& result) {
  if (job.on_disk) return false;
  Chunk* const chunk = find(job.chunk);
  if (chunk == nullptr || job.has_failed) {
    result.status = chunk == nullptr ? Errc::not_found : Errc::io_error;
    return true;
  }
  Bytes copy;
  if (std::exchange(job.has_copy, false)) {
    if (job.changes == chunk->changes) {
      copy = job.file_copy.bytes();
    } else if (++job.tries >= read_tries_max) {
      auto const file = chunks_.file_of(*chunk);
      std::uint64_t const at = data_offset(chunk->replica.chunk_size) + job.offset;
      if (file.has_error() || file.value()->read(at, job.file_copy.mutable_bytes()).has_error()) {
        result.status = Errc::io_error;
        return true;
      }
      copy = job.file_copy.bytes();
    }
  }
  Fill const filled = fill(*chunk, job.kind, job.offset, job.length, copy, result);
  if (filled == Fill::done) return true;
  if (filled == Fill::data_miss) {
    start_disk_read(job, *chunk);
    job.has_failed = !job.on_disk;
  }
  return false;
}

void Store::step_reads() {
  for (std::size_t i = 0; i < reads_.size();) {
    Read_result result;
    if (!step_read(*reads_[i], result)) {
      // A file that cannot be opened: the next look answers with the error.
      if (!reads_[i]->has_failed) ++i;
      continue;
    }
    auto const job = std::move(reads_[i]);
    reads_.erase(reads_.begin() + static_cast<std::ptrdiff_t>(i));
    job->done(result);
    i = 0;  // done() may have changed the list
  }
}

}  // namespace pstorage::cs
