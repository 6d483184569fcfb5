// The chunk files of a repository: opening, creating, removing, block tables in memory, space.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/env/disk.h"
#include "core/log.h"
#include "cs/chunk.h"

namespace pstorage::cs {

struct Chunk_store_options {
  std::size_t table_bytes_max = 48u << 20;
  std::size_t open_files_max = 512;
};

/// Knows files, not journals: whoever calls it sees to it that only durable state is written.
/// Blocking unless said otherwise. Thread: the store's loop.
class Chunk_store {
 public:
  Chunk_store(Disk& disk, Log& log, Chunk_store_options options)
      : disk_(disk), log_(log), options_(options) {}
  ~Chunk_store();

  /// Reads the names of all chunk files.
  Result<void> scan_names();
  std::size_t chunk_count() const { return names_.size(); }
  std::set<Chunk_id> const& names() const { return names_; }

  /// The chunk if it is in memory.
  Chunk* find(Chunk_id id) {
    auto const found = chunks_.find(id);
    return found == chunks_.end() ? nullptr : found->second.get();
  }
  /// The chunk, from its file if need be. Errors: not_found, corrupt (header), the disk's.
  Result<Chunk*> load(Chunk_id id);
  /// Makes a new chunk file; replaces a leftover of the same name. Errors: the disk's.
  Result<Chunk*> create(Chunk_id id, File_id file, std::uint32_t chunk_size, Version version,
                        Lsn created_lsn);
  /// Forgets the chunk and removes its file. No I/O may be under way on it.
  Result<void> remove(Chunk_id id);

  Result<File*> file_of(Chunk& chunk);
  Page& page_of(Chunk& chunk, std::uint32_t index);

  enum class Load { ready, loading, failed };
  /// Brings the table of `page` into memory. Not blocking: on a miss it answers loading, and
  /// on_loaded is called later.
  Load load_table(Page& page, bool blocking);
  void set_on_loaded(std::function<void()> on_loaded) { on_loaded_ = std::move(on_loaded); }
  void use_page(Page& page);
  /// Drops the least recently used clean tables over the limit. True: all over it are dirty.
  bool trim_tables();
  /// Closes the least recently used files over the limit. Not from a File's completion.
  void trim_files();

  void mark_dirty(Chunk& chunk) {
    if (!chunk.dirty.is_linked()) dirty_.push_back(chunk);
  }
  bool has_dirty() const { return !dirty_.empty(); }
  std::vector<Chunk*> dirty_chunks();
  /// Writes the dirty tables and the header of `chunk`; durable with the file's next sync.
  Result<void> store(Chunk& chunk, Lsn durable);
  /// The file of `chunk` has been synced since store().
  Result<void> stored(Chunk& chunk, Lsn durable);
  /// Directories with new or removed names that are not durable; the caller syncs them.
  std::vector<std::string> take_dirty_directories();
  void add_dirty_directory(std::string const& name) { dirty_directories_.insert(name); }

  /// What `record_damage` a chunk opened for the first time has missed.
  void set_damage(std::uint32_t damage) { damage_ = damage; }
  std::size_t table_bytes() const { return tables_ * sizeof(Table); }

 private:
  std::unique_ptr<Chunk> make_chunk(Chunk_id id, std::uint32_t chunk_size) const;
  Result<void> read_header(Chunk& chunk);
  Result<void> write_header(Chunk& chunk, Lsn durable);
  void install(Page& page, std::byte const* from);

  Disk& disk_;
  Log& log_;
  Chunk_store_options options_;
  std::function<void()> on_loaded_;
  std::uint32_t damage_ = 0;
  std::set<Chunk_id> names_;
  std::map<Chunk_id, std::unique_ptr<Chunk>> chunks_;
  std::set<std::string> dirty_directories_;
  std::set<std::string> directories_;
  std::size_t tables_ = 0;
  std::size_t open_files_ = 0;
  Hook_list<Page, &Page::by_use> pages_by_use_;
  Hook_list<Chunk, &Chunk::by_use> files_by_use_;
  Hook_list<Chunk, &Chunk::dirty> dirty_;
};

}  // namespace pstorage::cs
