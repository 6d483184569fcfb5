// Accepting writes: journal record, staged blocks.
#include <algorithm>
#include <cstring>

#include "cs/store.h"

namespace pstorage::cs {
namespace {

// A copied replica is written once: more than this at a time is put in place at once.
constexpr std::size_t repair_inline_max = 16u << 10;

}  // namespace

Staged& Store::stage(Chunk& chunk, std::uint32_t block, Lsn lsn) {
  Page& page = chunks_.page_of(chunk, block / page_blocks);
  if (!page.staged) {
    if (spare_pages_.empty()) {
      page.staged = std::make_unique<Staged_page>();
    } else {
      page.staged = std::move(spare_pages_.back());
      spare_pages_.pop_back();
    }
    page.staged->oldest = lsn;
    apply_queue_.push_back(page);
  }
  Staged_page& staged = *page.staged;
  Staged*& newest = staged.newest[block % page_blocks];
  if (newest != nullptr && newest->lsn > journal_->frozen()) {
    // No commit covers it yet, so the one that will covers the new content as well.
    staged_bytes_ -= newest->data.size();
    newest->data = {};
    newest->lsn = lsn;
    return *newest;
  }
  Staged* const entry = staged_pool_.take();
  staged_bytes_ += sizeof(Staged);
  if (newest == nullptr) {
    staged.present.set(block % page_blocks);
    ++staged.count;
  } else {
    entry->writer_stamp = newest->writer_stamp;
  }
  entry->older = newest;
  entry->lsn = lsn;
  newest = entry;
  return *entry;
}

void Store::stage_data(Chunk& chunk, std::uint32_t block, Lsn lsn, Block_record const& record,
                       Stamp writer, Slice data, Staged_kind kind) {
  Staged& entry = stage(chunk, block, lsn);
  entry.record = record;
  entry.writer_stamp = std::max(entry.writer_stamp, writer);
  entry.kind = kind;
  entry.doubtful = false;
  if (!chunk.large_sync.empty()) {
    chunk.large_sync[block] = kind == Staged_kind::large ? Chunk::not_in_place : 0;
  }
  staged_bytes_ += data.size();
  taken_since_space_ += data.size();
  entry.data = std::move(data);
}

void Store::writer_accepted(Chunk& chunk, Lsn lsn, Stamp stamp) {
  if (chunk.replica.unclean) chunk.cleaned_lsn = lsn;
  chunk.replica.accepted(stamp);
}

void Store::note_large(Chunk& chunk, Lsn lsn, std::uint32_t offset, std::uint32_t length) {
  chunk.large_lsn = lsn;
  large_.push_back({lsn, chunk.id, offset / block_bytes, length / block_bytes});
  commit_wanted_ = true;  // its acknowledgement waits for the commit
}

// Replay tells by its checksum whether a large write is in the chunk file. That is only sound for
// one large write a block at a time: were a second one to tear the first, nobody could say whether
// the first had been flushed. So where one is not synced yet, the data goes through the journal.
bool Store::may_be_large(Chunk const& chunk, std::uint32_t offset, std::uint32_t blocks,
                         std::size_t data_bytes, std::size_t inline_max) {
  if (data_bytes <= inline_max) return false;
  if (chunk.large_sync.empty()) return true;
  auto const from = chunk.large_sync.begin() + offset / block_bytes;
  return std::all_of(from, from + blocks,
                     [&](std::uint64_t sync) { return sync <= chunk.syncs_done; });
}

Lsn Store::write_inline(Chunk& chunk, Record record, Bytes crcs, Slice const& data) {
  record.type = Record_type::write;
  Lsn lsn = 0;
  for (std::size_t at = 0; at < data.size(); at += inline_bytes_max) {
    std::size_t const size = std::min<std::size_t>(inline_bytes_max, data.size() - at);
    Bytes const body = crcs.subspan(at / block_bytes * sizeof(std::uint32_t),
                                    size / block_bytes * sizeof(std::uint32_t));
    bool const is_last = at + size == data.size();
    record.length = static_cast<std::uint32_t>(size);
    record.flags = is_last ? 0 : record_partial;
    lsn = journal_->append(record, body, data.part(at, size));
    for (std::size_t i = 0; i < size / block_bytes; ++i) {
      Block_record const entry{record.stamp.value,
                               load_le<std::uint32_t>(body.data() + i * sizeof(std::uint32_t)), 0};
      stage_data(chunk, record.offset / block_bytes + static_cast<std::uint32_t>(i), lsn, entry,
                 is_last ? record.stamp : Stamp{}, data.part(at + i * block_bytes, block_bytes),
                 Staged_kind::data);
    }
    record.offset += record.length;
  }
  return lsn;
}

Store::Accepted Store::write(Chunk& chunk, std::uint32_t offset, Slice const& crcs,
                             Slice const& data, Stamp stamp) {
  auto const length = static_cast<std::uint32_t>(data.size());
  std::uint32_t const blocks = length / block_bytes;
  Record record;
  record.chunk = chunk.id;
  record.stamp = stamp;
  record.offset = offset;
  record.length = length;
  Accepted accepted;
  accepted.large = may_be_large(chunk, offset, blocks, data.size(), inline_bytes_max);
  turn_blocks_ += blocks;
  if (!accepted.large) {
    accepted.lsn = write_inline(chunk, record, crcs.bytes(), data);
  } else {
    record.type = Record_type::large;
    accepted.lsn = journal_->append(record, crcs.bytes(), {});
    chunk.large_sync.resize(chunk.replica.chunk_size / block_bytes);
    for (std::uint32_t i = 0; i < blocks; ++i) {
      Block_record const entry{stamp.value,
                               load_le<std::uint32_t>(crcs.data() + i * sizeof(std::uint32_t)), 0};
      stage_data(chunk, offset / block_bytes + i, accepted.lsn, entry, stamp,
                 data.part(std::size_t{i} * block_bytes, block_bytes), Staged_kind::large);
    }
    note_large(chunk, accepted.lsn, offset, length);
  }
  writer_accepted(chunk, accepted.lsn, stamp);
  return accepted;
}

Store::Accepted Store::zero(Chunk& chunk, std::uint32_t offset, std::uint32_t length, Stamp stamp) {
  Record record;
  record.type = Record_type::zero;
  record.chunk = chunk.id;
  record.stamp = stamp;
  record.offset = offset;
  record.length = length;
  Lsn const lsn = journal_->append(record, {}, {});
  Block_record const entry{stamp.value, never_written.crc, block_hole};
  for (std::uint32_t i = 0; i < length / block_bytes; ++i) {
    stage_data(chunk, offset / block_bytes + i, lsn, entry, stamp, {}, Staged_kind::hole);
  }
  turn_blocks_ += 1 + length / block_bytes / 8;
  writer_accepted(chunk, lsn, stamp);
  return {lsn, false};
}

Lsn Store::repair_inline(Chunk& chunk, Record record, std::span<Block_record const> records,
                         Slice const& data) {
  constexpr std::size_t blocks_max = inline_bytes_max / block_bytes;
  record.type = Record_type::repair;
  Lsn lsn = 0;
  std::size_t at = 0;
  std::uint32_t block = record.offset / block_bytes;
  while (!records.empty()) {
    auto const part = records.first(std::min(blocks_max, records.size()));
    records = records.subspan(part.size());
    auto const holes = std::count_if(part.begin(), part.end(), [](Block_record const& entry) {
      return (entry.flags & block_hole) != 0;
    });
    std::size_t const size = (part.size() - static_cast<std::size_t>(holes)) * block_bytes;
    record.offset = block * block_bytes;
    record.length = static_cast<std::uint32_t>(part.size() * block_bytes);
    lsn = journal_->append(record, std::as_bytes(part), size == 0 ? Slice() : data.part(at, size));
    for (Block_record const& entry : part) {
      bool const hole = (entry.flags & block_hole) != 0;
      stage_data(chunk, block++, lsn, entry, {}, hole ? Slice() : data.part(at, block_bytes),
                 hole ? Staged_kind::hole : Staged_kind::data);
      if (!hole) at += block_bytes;
    }
  }
  return lsn;
}

Store::Accepted Store::repair(Chunk& chunk, std::uint32_t offset,
                              std::span<Block_record const> records, Slice const& data) {
  auto const blocks = static_cast<std::uint32_t>(records.size());
  Record record;
  record.chunk = chunk.id;
  record.offset = offset;
  record.length = blocks * block_bytes;
  turn_blocks_ += blocks;
  chunk.replica.repaired();
  chunks_.mark_dirty(chunk);
  if (!may_be_large(chunk, offset, blocks, data.size(), repair_inline_max)) {
    return {repair_inline(chunk, record, records, data), false};
  }
  record.type = Record_type::large_repair;
  Lsn const lsn = journal_->append(record, std::as_bytes(records), {});
  chunk.large_sync.resize(chunk.replica.chunk_size / block_bytes);
  std::size_t at = 0;
  std::uint32_t block = offset / block_bytes;
  for (Block_record const& entry : records) {
    bool const hole = (entry.flags & block_hole) != 0;
    stage_data(chunk, block++, lsn, entry, {}, hole ? Slice() : data.part(at, block_bytes),
               hole ? Staged_kind::hole : Staged_kind::large);
    if (!hole) at += block_bytes;
  }
  note_large(chunk, lsn, offset, record.length);
  return {lsn, true};
}

Lsn Store::large_done() const {
  return large_.empty() ? journal_->appended() : large_.front().lsn - 1;
}

void Store::flush(File_id file, Store_done done) {
  if (read_only_) return done(Errc::io_error);
  Flush_job job;
  job.file = file;
  job.lsn = journal_->appended();
  job.done = std::move(done);
  if (job.lsn <= std::min(journal_->durable(), large_done())) return start_flush(std::move(job));
  if (job.lsn > journal_->frozen()) commit_wanted_ = true;
  flushes_.push_back(std::move(job));
}

}  // namespace pstorage::cs
