// The store of a chunk server: journal, staged blocks and chunk files together. What is
// acknowledged, what is durable, and what a read sees follows from here; DESIGN 5 and cs/README.md
// have the rules.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/env/clock.h"
#include "core/env/disk.h"
#include "core/latency.h"
#include "core/log.h"
#include "core/metrics/histogram.h"
#include "cs/chunk.h"
#include "cs/chunk_store.h"
#include "cs/disk_probe.h"
#include "cs/disk_watch.h"
#include "cs/journal.h"
#include "cs/slice_pool.h"
#include "cs/staged_pool.h"

namespace pstorage::cs {

struct Store_options {
  Chunk_store_options chunks;
  std::uint64_t salt = 0;  // of the repository
  std::string journal_name = "journal";
  std::size_t staged_bytes_max = 48u << 20;   // accepted, not applied; then requests wait
  std::size_t apply_above_bytes = 16u << 20;  // staged: from here on apply keeps up with writing
  std::uint64_t commit_bytes = 8u << 20;      // commit at the latest after so many bytes
  // Large writes in one chunk, not yet synced: from here on it is synced, so that the next large
  // write of the same blocks need not go through the journal and a flush finds little to do.
  std::uint64_t large_sync_bytes = 16u << 20;
  Duration commit_interval = std::chrono::seconds(1);
  Duration idle_after = std::chrono::seconds(3);  // then everything is applied and checkpointed
  std::uint64_t reserve_bytes = 0;                // of free space; 0 = 1 % within 64 MiB and 1 GiB
};

/// What a read, table or pull found.
struct Read_result {
  Errc status = Errc::ok;
  std::uint32_t bad_offset = 0;  // corrupt: the first such block
  Slice meta;                    // CRC32Cs (read) or Block_records (table, pull)
  Slice data;
};
enum class Read_kind : unsigned char { read, table, pull };

using Store_done = std::function<void(Errc)>;

/// Thread: the owner's loop. Callbacks run from end_turn(), on_tick() and disk completions.
class Store final : private Journal::Listener {
 public:
  /// `journal_disk` holds options.journal_name; often the same as `disk`.
  Store(Clock& clock, Disk& disk, Disk& journal_disk, Log& log, Store_options options);
  ~Store() override;

  /// Opens the repository and recovers it. Blocking. Errors: with a line for a person.
  Outcome<void> start();
  /// Commits, applies and checkpoints everything, then marks the repository clean. The store takes
  /// nothing after this call. `done` gets an error when the mark could not be set.
  void stop(Store_done done);

  // ---- chunks

  Chunk* find(Chunk_id id) {
    Chunk* const chunk = chunks_.find(id);
    return chunk == nullptr || chunk->removed ? nullptr : chunk;
  }
  Result<Chunk*> load(Chunk_id id);
  /// Errors: no_space, unavailable (a removal of the same id is under way, or no room in the
  /// journal), read_only, the disk's.
  Result<Chunk*> create(Chunk_id id, File_id file, std::uint32_t chunk_size, Version version);
  /// Records the replica's version and whether it is syncing. The caller has asked has_room().
  void record_open(Chunk& chunk);
  /// The chunk's sync is complete; `highest`: newest stamp that the source had. As record_open().
  void record_synced(Chunk& chunk, Stamp highest);
  /// Removes the chunk; `done` when that is durable in the journal and the file is gone. Unknown
  /// chunks: at once. Errors: unavailable (no room in the journal now), read_only.
  void remove(Chunk_id id, Store_done done);
  std::size_t chunk_count() const { return chunks_.chunk_count(); }
  /// Of all chunks on this disk.
  std::set<Chunk_id> const& names() const { return chunks_.names(); }

  Epoch seal_of(File_id file) const {
    auto const found = seals_.find(file);
    return found == seals_.end() ? Epoch{} : found->second;
  }
  /// The same, as a reference that stays valid and current.
  Epoch const& seal_reference(File_id file) { return seals_[file]; }
  /// Stores a seal not below the present one; `done` when it is durable. Errors as remove().
  void seal(File_id file, Epoch epoch, Store_done done);

  // ---- data. The caller has checked epoch, version, stamp and bounds (Replica).

  /// Is there room in journal and memory for `bytes` more? If not: ask again after on_progress.
  bool has_room(std::size_t bytes);
  /// Larger requests never find room.
  std::size_t request_bytes_max() const;
  /// Would a write of this range overfill the disk? Errors: no_space, read_only.
  Errc admit(Chunk& chunk, std::uint32_t offset, std::uint32_t length);
  /// A request was accepted: acknowledge it after the turn's end_turn(); a large one also only when
  /// large_done() has reached `lsn`.
  struct Accepted {
    Lsn lsn = 0;
    bool large = false;
  };
  /// Accepts a write whose checksums have been verified.
  Accepted write(Chunk& chunk, std::uint32_t offset, Slice const& crcs, Slice const& data,
                 Stamp stamp);
  Accepted zero(Chunk& chunk, std::uint32_t offset, std::uint32_t length, Stamp stamp);
  /// `data`: the non-hole blocks of `records`, in order.
  Accepted repair(Chunk& chunk, std::uint32_t offset, std::span<Block_record const> records,
                  Slice const& data);
  /// Large writes up to here are in place (LSNs of write() and repair()).
  Lsn large_done() const;
  /// The last large write that is not in place yet; 0: none.
  Lsn last_large() const { return large_.empty() ? 0 : large_.back().lsn; }
  /// For the last resort of a reconciliation: makes what the torn `block` holds its content under
  /// `stamp`. Blocking. Errors: corrupt (it is not torn, or has changed since), the disk's.
  Result<void> accept_torn(Chunk& chunk, std::uint32_t block, Stamp stamp);
  /// Everything of `file` that was accepted so far is durable when `done` says ok.
  void flush(File_id file, Store_done done);

  /// Answers from memory and page cache; false: it needs the disk, use read_async().
  bool try_read(Chunk& chunk, Read_kind kind, std::uint32_t offset, std::uint32_t length,
                Read_result& result);
  void read_async(Chunk_id chunk, Read_kind kind, std::uint32_t offset, std::uint32_t length,
                  std::function<void(Read_result&)> done);
  /// What the replica holds for `block` now, staged or applied. Blocks when the table is not in
  /// memory.
  Block_record block_record(Chunk& chunk, std::uint32_t block);

  // ---- rhythm

  /// Writes the turn's journal records. Not ok: nothing of this turn may be acknowledged.
  Errc end_turn();
  void on_tick();
  /// Something waits no more: room, large writes in place.
  void set_on_progress(std::function<void()> on_progress) { on_progress_ = std::move(on_progress); }

  // ---- figures

  bool is_read_only() const { return read_only_; }
  std::string const& read_only_reason() const { return read_only_reason_; }
  Disk_space space() const { return space_; }
  std::uint64_t syncs() const { return syncs_; }
  std::size_t staged_bytes() const { return staged_bytes_; }
  /// Requests that wait for the disk now.
  std::size_t waiting() const {
    return reads_.size() + flushes_.size() + file_flushes_.size() + large_.size();
  }
  Latency const& latency() const { return latency_; }
  /// Since the start: commits of the journal, syncs of chunk files.
  Latency_histogram const& commits() const { return commits_; }
  Latency_histogram const& file_syncs() const { return file_sync_times_; }
  /// For how long the disk has not finished a request; zero: it owes nothing.
  Duration stalled(Time_point now) const;
  /// Measures the disk also while nobody writes; latency() and stalled() tell.
  void set_probing(bool on) { probe_.set_on(on); }
  Journal const& journal() const { return *journal_; }
  Slice_pool& pool() { return pool_; }

 private:
  friend class Recovery;
  struct Flush_job {
    File_id file;
    Lsn lsn = 0;
    std::vector<std::pair<Chunk_id, std::uint64_t>> files;  // must be synced up to there
    Store_done done;
  };
  struct Durable_job {
    Lsn lsn = 0;
    Store_done done;
  };
  struct Large {
    Lsn lsn = 0;
    Chunk_id chunk;
    std::uint32_t first_block = 0;
    std::uint32_t blocks = 0;
  };
  struct Removal {
    Lsn lsn = 0;
    Chunk_id chunk;
    Store_done done;
  };
  struct Read_job {
    Chunk_id chunk;
    Read_kind kind = Read_kind::read;
    std::uint32_t offset = 0;
    std::uint32_t length = 0;
    unsigned tries = 0;
    std::uint64_t changes = 0;
    bool on_disk = false;  // a disk read is under way
    Disk_watch::Request request = 0;
    bool has_copy = false;  // file_copy is what the file held when chunk.changes was `changes`
    bool has_failed = false;
    Slice file_copy;
    std::function<void(Read_result&)> done;
  };
  enum class Fill { done, table_miss, data_miss };
  enum class Checkpoint { none, apply, files, directories };
  struct Ready {              // a block to apply
    std::uint32_t block = 0;  // in the page
    Staged* entry = nullptr;
    Staged* newer = nullptr;
  };

  // Journal::Listener
  void on_durable(Lsn durable) override;
  void on_journal_failed(std::error_code error) override;

  // store.cc
  void when_durable(Lsn lsn, Store_done done);
  void append_open(Chunk& chunk, std::uint16_t flags, Stamp stamp);
  void fail(std::string const& what, std::error_code error);
  void refresh_space();
  bool has_space(std::uint64_t bytes) const;
  void carry_out_removals();
  void drop_staged(Chunk& chunk);
  void want_commits(Time_point now);
  void probe_began();
  void probe_ended(bool ok);

  // store_write.cc
  static Staged& newest(Chunk& chunk, std::uint32_t block) {
    return *chunk.pages[block / page_blocks]->staged->newest[block % page_blocks];
  }
  Staged& stage(Chunk& chunk, std::uint32_t block, Lsn lsn);
  void stage_data(Chunk& chunk, std::uint32_t block, Lsn lsn, Block_record const& record,
                  Stamp writer, Slice data, Staged_kind kind);
  void writer_accepted(Chunk& chunk, Lsn lsn, Stamp stamp);
  void note_large(Chunk& chunk, Lsn lsn, std::uint32_t offset, std::uint32_t length);
  static bool may_be_large(Chunk const& chunk, std::uint32_t offset, std::uint32_t blocks,
                           std::size_t data_bytes, std::size_t inline_max);
  Lsn write_inline(Chunk& chunk, Record record, Bytes crcs, Slice const& data);
  Lsn repair_inline(Chunk& chunk, Record record, std::span<Block_record const> records,
                    Slice const& data);
  void mark_in_place(Chunk& chunk, Large const& large);

  // store_apply.cc
  std::size_t apply_some(std::size_t blocks);
  /// How many blocks went to the file; 0 when the table is being loaded or nothing is durable yet.
  Result<std::size_t> apply_page(Page& page, Lsn durable, bool blocking);
  std::size_t collect_ready(Page& page, Lsn durable);
  Result<void> apply_run(Page& page, std::size_t first, std::size_t count);
  Result<void> load_from_journal(std::size_t first, std::size_t count);
  void finish_block(Page& page, Ready const& ready);
  void settle_page(Page& page);
  void release_chain(Staged* entry);
  bool apply_upto(Lsn target, std::size_t blocks);
  void apply_large();
  void put_large_in_place();
  void sync_name(Chunk& chunk);
  void apply_failed(Chunk& chunk, std::error_code error);

  // store_sync.cc
  void start_flush(Flush_job job);
  void check_file_flushes();
  void sync_file(Chunk& chunk);
  void start_sync(Chunk& chunk);
  void note_synced(Chunk const& chunk, Lsn covered);
  void file_synced(Chunk& chunk, Lsn covered, Result<void> const& result);
  void want_checkpoint(Time_point now);
  void step_checkpoint(std::size_t blocks);
  void checkpoint_files();
  void checkpoint_directories();
  Result<void> write_seals();
  void store_seals();
  Result<void> store_seals_blocking();
  Result<void> load_seals();
  void step_stop();

  // store_read.cc
  Fill fill(Chunk& chunk, Read_kind kind, std::uint32_t offset, std::uint32_t length,
            Bytes file_copy, Read_result& result);
  Chunk_store::Load load_tables(Chunk& chunk, std::uint32_t first, std::uint32_t blocks);
  Block_record const& table_entry(Chunk& chunk, std::uint32_t block);
  Result<void> gather(Chunk& chunk, std::uint32_t first, std::uint32_t blocks, Bytes file_copy,
                      Mutable_bytes to);
  Result<void> read_run(Chunk& chunk, std::uint32_t first, std::uint32_t blocks, Bytes file_copy,
                        Mutable_bytes to, Block_record* records);
  void finish_read(Read_kind kind, std::uint32_t offset, std::uint32_t blocks, Slice data,
                   Read_result& result);
  bool step_read(Read_job& job, Read_result& result);
  void start_disk_read(Read_job& job, Chunk& chunk);
  void step_reads();

  Clock& clock_;
  Disk& disk_;
  Disk& journal_disk_;
  Log& log_;
  Store_options options_;
  Chunk_store chunks_;
  std::unique_ptr<Journal> journal_;
  std::map<File_id, Epoch> seals_;
  bool seals_dirty_ = false;

  Staged_pool staged_pool_;
  std::size_t staged_bytes_ = 0;
  Hook_list<Page, &Page::to_apply> apply_queue_;
  std::array<Ready, page_blocks> ready_;  // scratch of apply_page
  std::deque<Large> large_;
  std::deque<Flush_job> flushes_;        // waiting for the journal
  std::vector<Flush_job> file_flushes_;  // waiting for chunk files
  std::set<Chunk_id> large_unsynced_;
  std::set<Chunk_id> removing_;
  std::deque<Durable_job> durable_jobs_;
  std::deque<Removal> removals_;
  std::vector<std::unique_ptr<Read_job>> reads_;
  std::vector<Block_record> records_;  // scratch of gather
  std::vector<std::unique_ptr<Staged_page>> spare_pages_;

  Checkpoint checkpoint_ = Checkpoint::none;
  bool checkpoint_wanted_ = false;
  Lsn checkpoint_target_ = 0;
  std::vector<Chunk_id> checkpoint_chunks_;             // not yet stored
  std::map<Chunk_id, std::uint64_t> checkpoint_syncs_;  // stored; synced when that one is done
  std::size_t checkpoint_directories_ = 0;              // syncs under way
  std::unique_ptr<File> seals_file_;                    // being written
  bool seals_stored_ = false;                           // seals_file_ may be closed

  bool started_ = false;
  bool stopping_ = false;
  Store_done stop_done_;
  bool read_only_ = false;
  std::string read_only_reason_;
  Disk_space space_;
  std::uint64_t reserve_bytes_ = 0;
  std::uint64_t taken_since_space_ = 0;  // accepted since space_ was asked for
  bool disk_full_ = false;               // an apply found no space; it is tried again each second
  Time_point last_space_{};
  Time_point tick_time_{};  // reading the clock a turn costs more than a write
  Time_point last_write_{};
  Time_point last_commit_{};
  bool commit_wanted_ = false;
  bool pressed_ = false;  // somebody waits for room
  std::size_t turn_blocks_ = 0;
  std::uint64_t syncs_ = 0;
  Latency latency_;  // of commits
  Latency_histogram commits_, file_sync_times_;
  Time_point commit_started_{};
  Disk_watch disk_watch_;  // reads and syncs of files; commits apart
  Disk_probe probe_;
  Disk_watch::Request probe_request_ = 0;
  Time_point probe_began_{};
  std::function<void()> on_progress_;
  Slice_pool pool_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pstorage::cs
