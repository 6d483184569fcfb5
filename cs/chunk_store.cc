#include "cs/chunk_store.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace pstorage::cs {

Chunk_store::~Chunk_store() {
  dirty_.clear();
  files_by_use_.clear();
  pages_by_use_.clear();
}

Result<void> Chunk_store::scan_names() {
  PS_TRY(auto const directories, disk_.list("chunks"));
  for (std::string const& directory : directories) {
    std::string const path = "chunks/" + directory;
    directories_.insert(path);
    auto const names = disk_.list(path);
    if (names.has_error()) return names.error();
    for (std::string const& name : names.value()) {
      Chunk_id const id = chunk_of_name(name);
      if (id && chunk_directory(id) == path) names_.insert(id);
    }
  }
  return success();
}

std::unique_ptr<Chunk> Chunk_store::make_chunk(Chunk_id id, std::uint32_t chunk_size) const {
  auto chunk = std::make_unique<Chunk>();
  chunk->id = id;
  chunk->replica.chunk_size = chunk_size;
  chunk->damage_seen = damage_;
  chunk->pages.resize(pages_of(chunk_size));
  return chunk;
}

Result<Chunk*> Chunk_store::load(Chunk_id id) {
  if (Chunk* known = find(id)) return known;
  if (!names_.contains(id)) return Errc::not_found;
  auto chunk = make_chunk(id, chunk_size_min);
  PS_CHECK(read_header(*chunk));
  Chunk* const loaded = chunk.get();
  chunks_[id] = std::move(chunk);
  return loaded;
}

Result<void> Chunk_store::read_header(Chunk& chunk) {
  Open_mode const mode{.random = true};
  PS_TRY(auto const file, disk_.open(chunk_name(chunk.id), mode));
  std::array<std::byte, chunk_header_bytes> bytes;
  PS_CHECK(file->read(0, bytes));
  bool const is_empty =
      std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
  // Made just before the power failed; nothing durable ever said that it exists.
  if (is_empty) return Errc::not_found;
  PS_TRY(auto const header, decode_chunk_header(bytes.data()));
  if (header.chunk != chunk.id) return Errc::corrupt;
  chunk.replica.file = header.file;
  chunk.replica.chunk_size = header.chunk_size;
  chunk.replica.version = header.version;
  chunk.replica.last_stamp = chunk.applied_stamp = header.last_stamp;
  // Journal records were lost since: nobody knows up to which write this replica is complete.
  bool const is_damaged = header.damage_seen < damage_;
  if (is_damaged) chunk.replica.last_stamp = chunk.applied_stamp = {};
  chunk.replica.unclean = header.unclean || is_damaged;
  chunk.replica.syncing = header.syncing;
  chunk.damage_seen = header.damage_seen;
  chunk.created_lsn = header.created_lsn;
  chunk.stored_pages = header.stored_pages;
  chunk.pages.resize(pages_of(header.chunk_size));
  return success();
}

Result<void> Chunk_store::write_header(Chunk& chunk, Lsn durable) {
  Replica const& replica = chunk.replica;
  bool const cleaned = !replica.unclean && chunk.cleaned_lsn <= durable;
  if (cleaned) chunk.damage_seen = damage_;
  Chunk_header header;
  header.chunk = chunk.id;
  header.file = replica.file;
  header.chunk_size = replica.chunk_size;
  header.version = replica.version;
  header.last_stamp = chunk.applied_stamp;
  header.unclean = !cleaned;
  header.syncing = replica.syncing;
  header.damage_seen = chunk.damage_seen;
  header.created_lsn = chunk.created_lsn;
  header.stored_pages = chunk.stored_pages;
  std::array<std::byte, chunk_header_bytes> bytes;
  encode_chunk_header(header, bytes.data());
  PS_TRY(File* const file, file_of(chunk));
  PS_CHECK(file->write(0, Bytes(bytes)));
  return success();
}

Result<Chunk*> Chunk_store::create(Chunk_id id, File_id file, std::uint32_t chunk_size,
                                   Version version, Lsn created_lsn) {
  PS_ASSERT(is_chunk_size(chunk_size) && find(id) == nullptr);
  std::string const directory = chunk_directory(id);
  std::string const name = chunk_name(id);
  if (!directories_.contains(directory)) {
    if (!disk_.exists(directory)) PS_CHECK(disk_.make_directory(directory));
    directories_.insert(directory);
    dirty_directories_.insert("chunks");
  }
  if (disk_.exists(name)) PS_CHECK(disk_.remove(name));
  auto chunk = make_chunk(id, chunk_size);
  PS_TRY(chunk->file, disk_.open(name, Open_mode{.create = true, .random = true}));
  ++open_files_;
  chunk->replica.file = file;
  chunk->replica.version = version;
  chunk->created_lsn = created_lsn;
  chunk->fresh = true;
  chunk->name_durable = false;
  names_.insert(id);
  dirty_directories_.insert(directory);
  Chunk* const made = chunk.get();
  chunks_[id] = std::move(chunk);
  files_by_use_.push_back(*made);
  mark_dirty(*made);
  // Written at once: a file that has been synced for a flush must be recognised after a power loss.
  auto const result = write_header(*made, created_lsn);
  if (result.has_error()) {
    static_cast<void>(remove(id));  // what is left is an empty file, which load() takes for none
    return result.error();
  }
  return made;
}

Result<void> Chunk_store::remove(Chunk_id id) {
  if (Chunk* chunk = find(id)) {
    PS_ASSERT(chunk->io_in_flight == 0 && !chunk->is_syncing_file());
    for (auto& page : chunk->pages) {
      if (page && page->table) --tables_;
    }
    if (chunk->file) --open_files_;
    chunks_.erase(id);
  }
  names_.erase(id);
  dirty_directories_.insert(chunk_directory(id));
  if (!disk_.exists(chunk_name(id))) return success();
  return disk_.remove(chunk_name(id));
}

Result<File*> Chunk_store::file_of(Chunk& chunk) {
  if (!chunk.file) {
    PS_TRY(chunk.file, disk_.open(chunk_name(chunk.id), Open_mode{.random = true}));
    ++open_files_;
    files_by_use_.push_back(chunk);
  } else if (&files_by_use_.back() != &chunk) {
    chunk.by_use.unlink();
    files_by_use_.push_back(chunk);
  }
  return chunk.file.get();
}

void Chunk_store::trim_files() {
  auto it = files_by_use_.begin();
  while (open_files_ > options_.open_files_max && it != files_by_use_.end()) {
    Chunk& chunk = *it++;
    // A dirty file stays open until it is synced: the kernel tells of a failed write-back only
    // those who had the file open.
    bool const pinned = chunk.dirty.is_linked() || chunk.io_in_flight != 0 ||
                        chunk.is_syncing_file() || chunk.large_unsynced ||
                        it == files_by_use_.end();
    if (pinned) continue;
    chunk.by_use.unlink();
    chunk.file.reset();
    --open_files_;
  }
}

Page& Chunk_store::page_of(Chunk& chunk, std::uint32_t index) {
  auto& slot = chunk.pages[index];
  if (!slot) {
    slot = std::make_unique<Page>(chunk, index);
    slot->on_disk = !chunk.fresh;
  }
  return *slot;
}

void Chunk_store::install(Page& page, std::byte const* from) {
  page.table = std::make_unique<Table>();
  ++tables_;
  if (from == nullptr) {
    page.table->fill(never_written);
  } else {
    decode_table(from, page.chunk.id, page.index, page.chunk.stored_pages[page.index], *page.table);
  }
  pages_by_use_.push_back(page);
}

Chunk_store::Load Chunk_store::load_table(Page& page, bool blocking) {
  if (page.table) return Load::ready;
  if (page.loading) return Load::loading;
  if (!page.on_disk) {
    install(page, nullptr);
    return Load::ready;
  }
  auto const file = file_of(page.chunk);
  if (file.has_error()) return Load::failed;
  std::uint64_t const at = table_offset + std::uint64_t{page.index} * page_bytes;
  std::array<std::byte, page_bytes> bytes;
  auto const result =
      blocking ? file.value()->read(at, bytes) : file.value()->read_cached(at, bytes);
  if (result.has_value()) {
    install(page, bytes.data());
    return Load::ready;
  }
  if (blocking || errc_of(result.error()) != Errc::would_block) return Load::failed;
  page.loading = true;
  ++page.chunk.io_in_flight;
  Slice buffer = Slice::allocate(page_bytes);
  Mutable_bytes const to = buffer.mutable_bytes();
  file.value()->read_async(at, to, [this, &page, buffer](Result<void> done) {
    page.loading = false;
    --page.chunk.io_in_flight;
    if (done.has_value() && !page.table) install(page, buffer.data());
    if (done.has_error()) {
      log_.error("cannot read a block table",
                 {{"chunk", page.chunk.id}, {"error", done.error().message()}});
    }
    if (on_loaded_) on_loaded_();
  });
  return Load::loading;
}

void Chunk_store::use_page(Page& page) {
  if (!page.by_use.is_linked() || &pages_by_use_.back() == &page) return;
  page.by_use.unlink();
  pages_by_use_.push_back(page);
}

bool Chunk_store::trim_tables() {
  while (table_bytes() > options_.table_bytes_max && !pages_by_use_.empty()) {
    Page& page = pages_by_use_.front();
    pages_by_use_.pop_front();
    page.table.reset();
    --tables_;
  }
  return table_bytes() > options_.table_bytes_max;
}

std::vector<Chunk*> Chunk_store::dirty_chunks() {
  std::vector<Chunk*> all;
  for (Chunk& chunk : dirty_) all.push_back(&chunk);
  return all;
}

Result<void> Chunk_store::store(Chunk& chunk, Lsn durable) {
  chunk.dirty.unlink();
  PS_TRY(File* const file, file_of(chunk));
  std::array<std::byte, page_bytes> bytes;
  for (auto& page : chunk.pages) {
    if (!page || !page->dirty) continue;
    encode_table(*page->table, chunk.id, page->index, bytes.data());
    std::uint64_t const at = table_offset + std::uint64_t{page->index} * page_bytes;
    PS_CHECK(file->write(at, Bytes(bytes)));
    page->dirty = false;
    page->on_disk = true;
    chunk.storing_pages.set(page->index);
    pages_by_use_.push_back(*page);
  }
  return write_header(chunk, durable);
}

Result<void> Chunk_store::stored(Chunk& chunk, Lsn durable) {
  bool const news = (chunk.storing_pages & ~chunk.stored_pages).any();
  chunk.stored_pages |= chunk.storing_pages;
  chunk.storing_pages.reset();
  // Only now, the pages being durable, may an empty entry of theirs count as damage. When the
  // header itself becomes durable does not matter.
  if (news) return write_header(chunk, durable);
  return success();
}

std::vector<std::string> Chunk_store::take_dirty_directories() {
  std::vector<std::string> all(dirty_directories_.begin(), dirty_directories_.end());
  dirty_directories_.clear();
  return all;
}

}  // namespace pstorage::cs
