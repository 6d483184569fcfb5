#include "cs/recovery.h"

#include <algorithm>
#include <array>

#include "core/crc32c.h"

namespace pstorage::cs {
namespace {

bool is_well_formed(Journal::Visited const& visited, std::uint32_t chunk_size) {
  Record const& record = visited.header.record;
  if (record.length == 0 || record.offset % block_bytes != 0 || record.length % block_bytes != 0 ||
      !in_bounds(record.offset, record.length, chunk_size)) {
    return false;
  }
  std::size_t const blocks = record.length / block_bytes;
  switch (record.type) {
    case Record_type::write:
    case Record_type::large:
      return visited.body.size() == blocks * sizeof(std::uint32_t);
    case Record_type::repair:
    case Record_type::large_repair:
      return visited.body.size() == blocks * sizeof(Block_record);
    default:
      return true;
  }
}

Failure start_failure(std::error_code error, std::string const& what) {
  return failure(error, what + ": " + error.message());
}

}  // namespace

Outcome<void> Recovery::run() {
  PS_CHECK(open_journal());
  auto result = store_.chunks_.scan_names();
  if (result.has_error()) return start_failure(result.error(), "cannot list the chunk files");
  result = store_.load_seals();
  if (result.has_error()) {
    return start_failure(result.error(),
                         "cannot read the file 'seals' of the repository; without it old writers "
                         "could not be told from new ones: replace this chunk server");
  }
  Journal_super const super = store_.journal_->super();
  store_.chunks_.set_damage(super.damage);
  if (!super.clean) return replay();
  result = store_.journal_->restart(super.tail, super.damage);
  if (result.has_error()) return start_failure(result.error(), "cannot write the journal");
  return success();
}

Outcome<void> Recovery::open_journal() {
  std::string const& name = store_.options_.journal_name;
  auto file = store_.journal_disk_.open(name, {});
  if (file.has_error()) return start_failure(file.error(), "cannot open the journal " + name);
  store_.journal_ = std::make_unique<Journal>(std::move(file).value());
  auto const opened = store_.journal_->open(store_.options_.salt);
  if (opened.has_error()) {
    return start_failure(opened.error(), "the journal " + name +
                                             " does not belong to this repository or is damaged");
  }
  return success();
}

Outcome<void> Recovery::replay() {
  Journal& journal = *store_.journal_;
  auto const scanned = journal.scan([this](Journal::Visited const& visited) { visit(visited); });
  if (scanned.has_error()) return start_failure(scanned.error(), "cannot read the journal");
  if (error_) return start_failure(error_, "cannot read the chunk files for recovery");
  std::uint32_t const damage = journal.super().damage + scanned.value().damaged;
  if (scanned.value().damaged != 0) {
    // What the lost records changed is unknown: every chunk compares its whole table when it is
    // opened.
    store_.log_.error(
        "the journal is damaged in the middle; chunks will be compared with their other "
        "replicas when they are opened",
        {{"records_lost", scanned.value().damaged}});
    store_.chunks_.set_damage(damage);
    for (auto const& id : store_.chunks_.names()) {
      Chunk* const chunk = store_.chunks_.find(id);
      if (chunk == nullptr) continue;
      chunk->replica.unclean = true;
      chunk->replica.last_stamp = chunk->applied_stamp = {};
    }
  }
  auto result = apply_all();
  lower_stamps();
  if (result.has_value()) result = make_durable();
  if (result.has_value()) result = journal.restart(scanned.value().end, damage);
  if (result.has_error()) {
    return start_failure(result.error(), errc_of(result.error()) == Errc::no_space
                                             ? "recovery needs free disk space; make some and retry"
                                             : "cannot write the repository");
  }
  store_.log_.info("recovered after an unclean stop",
                   {{"records", scanned.value().records}, {"torn_blocks", torn_}});
  return success();
}

Result<Chunk*> Recovery::chunk_of(Chunk_id id) {
  auto loaded = store_.chunks_.load(id);
  if (loaded.has_value()) return loaded;
  Errc const why = errc_of(loaded.error());
  if (why != Errc::not_found && why != Errc::corrupt) note_error(loaded.error());
  return loaded;
}

void Recovery::visit(Journal::Visited const& visited) {
  Record const& record = visited.header.record;
  if (record.type == Record_type::seal) {
    Epoch& seal = store_.seals_[record.file];
    seal = std::max(seal, record.stamp.epoch());
    store_.seals_dirty_ = true;
    return;
  }
  if (record.type == Record_type::open) return visit_open(visited);
  if (record.type == Record_type::remove) return visit_remove(record.chunk, visited.end);
  auto const chunk = chunk_of(record.chunk);
  if (chunk.has_error()) {
    if (missing_.insert(record.chunk).second) {
      store_.log_.error("a chunk has journal records but no valid file; its replica here is lost",
                        {{"chunk", record.chunk}});
    }
    return;
  }
  // Records of an earlier chunk file of this id, removed since.
  if (chunk.value()->created_lsn > visited.end) return;
  if (record.type == Record_type::synced) return visit_synced(*chunk.value(), record.stamp.value);
  if (!is_well_formed(visited, chunk.value()->replica.chunk_size)) {
    store_.log_.error("a journal record does not fit its chunk", {{"chunk", record.chunk}});
    return;
  }
  visit_data(*chunk.value(), visited);
}

void Recovery::visit_open(Journal::Visited const& visited) {
  Record const& record = visited.header.record;
  auto loaded = chunk_of(record.chunk);
  if (loaded.has_value() && loaded.value()->created_lsn > visited.end) return;
  if ((record.flags & record_create) != 0) {
    bool const is_there = loaded.has_value() && loaded.value()->created_lsn == visited.end;
    if (!is_there) {
      if (loaded.has_value()) visit_remove(record.chunk, visited.end);
      loaded = store_.chunks_.create(record.chunk, record.file, record.length, record.version,
                                     visited.end);
      if (loaded.has_error()) return note_error(loaded.error());
    }
    // The name may be in the page cache only, after a mere restart.
    store_.chunks_.add_dirty_directory(chunk_directory(record.chunk));
    store_.chunks_.add_dirty_directory("chunks");
    missing_.erase(record.chunk);
  }
  if (loaded.has_error()) return;
  Replica& replica = loaded.value()->replica;
  replica.version = std::max(replica.version, record.version);
  replica.syncing = (record.flags & record_syncing) != 0;
  replica.unclean = true;
  if ((record.flags & record_completes_sync) != 0) {
    replica.last_stamp = loaded.value()->applied_stamp = record.stamp;
  }
  store_.chunks_.mark_dirty(*loaded.value());
}

void Recovery::visit_remove(Chunk_id id, Lsn end) {
  auto const chunk = store_.chunks_.load(id);
  if (chunk.has_value()) {
    if (chunk.value()->created_lsn > end) return;  // made anew since
    store_.drop_staged(*chunk.value());
  }
  missing_.erase(id);
  std::erase_if(missing_data_, [id](auto const& one) { return one.first.first == id; });
  auto const removed = store_.chunks_.remove(id);
  if (removed.has_error()) note_error(removed.error());
}

void Recovery::visit_data(Chunk& chunk, Journal::Visited const& visited) {
  Record const& record = visited.header.record;
  chunk.replica.unclean = true;
  if ((record.flags & record_partial) == 0) {
    chunk.replica.last_stamp = std::max(chunk.replica.last_stamp, record.stamp);
    chunk.applied_stamp = std::max(chunk.applied_stamp, record.stamp);
  }
  store_.chunks_.mark_dirty(chunk);
  bool const has_records =
      record.type == Record_type::repair || record.type == Record_type::large_repair;
  bool const is_inline = record.type == Record_type::write || record.type == Record_type::repair;
  std::uint64_t data_at = visited.data_at;
  for (std::uint32_t i = 0; i < record.length / block_bytes; ++i) {
    Block_record entry{record.stamp.value, never_written.crc, block_hole};
    if (has_records) {
      entry = load_le<Block_record>(visited.body.data() + i * sizeof(Block_record));
    } else if (record.type != Record_type::zero) {
      entry.crc = load_le<std::uint32_t>(visited.body.data() + i * sizeof(std::uint32_t));
      entry.flags = 0;
    }
    std::uint32_t const block = record.offset / block_bytes + i;
    bool const hole = (entry.flags & block_hole) != 0;
    if (hole || is_inline) {
      replay_block(chunk, block, visited.end, entry, data_at);
      if (!hole) data_at += block_bytes;
    } else {
      replay_large(chunk, block, visited.end, entry, !has_records);
    }
  }
}

void Recovery::replay_block(Chunk& chunk, std::uint32_t block, Lsn lsn, Block_record const& record,
                            std::uint64_t journal_at) {
  missing_data_.erase({chunk.id, block});
  bool const hole = (record.flags & block_hole) != 0;
  store_.stage_data(chunk, block, lsn, record, {}, {},
                    hole ? Staged_kind::hole : Staged_kind::journal);
  store_.newest(chunk, block).journal_at = journal_at;
}

void Recovery::replay_large(Chunk& chunk, std::uint32_t block, Lsn lsn, Block_record const& record,
                            bool is_write) {
  std::array<std::byte, block_bytes> content;
  auto const file = store_.chunks_.file_of(chunk);
  if (file.has_error()) return note_error(file.error());
  std::uint64_t const at =
      data_offset(chunk.replica.chunk_size) + std::uint64_t{block} * block_bytes;
  auto const read = file.value()->read(at, content);
  if (read.has_error()) return note_error(read.error());
  std::uint32_t const crc = crc32c(content);
  if (crc == record.crc) {
    missing_data_.erase({chunk.id, block});
    store_.stage_data(chunk, block, lsn, record, {}, {}, Staged_kind::in_file);
    return;
  }
  // Only behind a synced one may a large record stand: of an earlier one nothing was lost.
  missing_data_[{chunk.id, block}] = {lsn, record, is_write};
  // It never got there, or was torn on the way, or a later one was. The file may hold the previous
  // content, or an earlier record of the journal does; but behind two large writes neither of which
  // is there, the first may have been flushed and then torn by the second.
  bool const is_staged = chunk.staged_block(block) != nullptr;
  Block_record const old = store_.block_record(chunk, block);
  if ((old.flags & block_corrupt) == 0 && old.crc == crc) return;
  if (is_staged) {
    Staged& before = store_.newest(chunk, block);
    bool const in_journal = before.kind == Staged_kind::journal || before.kind == Staged_kind::hole;
    if (in_journal && !std::exchange(before.doubtful, true)) return;
  }
  ++torn_;
  Block_record const torn{record.stamp, crc, block_corrupt | block_torn};
  store_.stage_data(chunk, block, lsn, torn, {}, {}, Staged_kind::torn);
}

// What was durable and is not there was neither torn nor cut off by the crash: it is damage. It
// keeps its record, so that a reader is told, and the other replicas' content replaces it.
void Recovery::visit_synced(Chunk& chunk, Lsn covered) {
  auto it = missing_data_.lower_bound({chunk.id, 0});
  while (it != missing_data_.end() && it->first.first == chunk.id) {
    auto const& [lsn, record, is_write] = it->second;
    if (lsn > covered) {
      ++it;
      continue;
    }
    store_.stage_data(chunk, it->first.second, lsn, record, {}, {}, Staged_kind::in_file);
    it = missing_data_.erase(it);
  }
}

Result<void> Recovery::apply_all() {
  auto& queue = store_.apply_queue_;
  while (!queue.empty()) {
    PS_CHECK(store_.apply_page(queue.front(), ~Lsn{0}, true));
    if (!store_.chunks_.trim_tables()) continue;
    for (Chunk* chunk : store_.chunks_.dirty_chunks()) {
      PS_CHECK(store_.chunks_.store(*chunk, ~Lsn{0}));
      store_.chunks_.mark_dirty(*chunk);  // not synced yet
    }
  }
  return success();
}

// The last stamp says "everything up to here is on this disk". A large write whose record is there
// and whose data is not was never flushed, but its writer may live and count on it.
void Recovery::lower_stamps() {
  for (auto const& [place, missing] : missing_data_) {
    Chunk* const chunk = store_.chunks_.find(place.first);
    if (chunk == nullptr || !missing.is_write) continue;
    Stamp const below{missing.record.stamp - 1};
    chunk->replica.last_stamp = std::min(chunk->replica.last_stamp, below);
    chunk->applied_stamp = std::min(chunk->applied_stamp, below);
  }
}

Result<void> Recovery::make_durable() {
  for (Chunk* chunk : store_.chunks_.dirty_chunks()) {
    PS_CHECK(store_.chunks_.store(*chunk, ~Lsn{0}));
    PS_TRY(File* const file, store_.chunks_.file_of(*chunk));
    PS_CHECK(file->sync());
    PS_CHECK(store_.chunks_.stored(*chunk, ~Lsn{0}));
    chunk->name_durable = true;
  }
  PS_CHECK(store_.store_seals_blocking());
  for (std::string const& directory : store_.chunks_.take_dirty_directories()) {
    PS_CHECK(store_.disk_.sync_directory(directory));
  }
  return success();
}

}  // namespace pstorage::cs
