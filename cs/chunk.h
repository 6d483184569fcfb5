// One chunk in memory: its replica's rules, the pages of its block table, and what was accepted but
// is not in its file yet. Data structures of Store and Chunk_store, no logic of their own.
#pragma once

#include <array>
#include <bit>
#include <bitset>
#include <boost/intrusive/list.hpp>
#include <memory>
#include <vector>

#include "core/buffer.h"
#include "core/env/disk.h"
#include "cs/layout.h"
#include "cs/replica.h"

namespace pstorage::cs {

struct Chunk;

enum class Staged_kind : unsigned char {
  data,  // `data` is the block, in the journal too
  hole,
  large,    // `data` is the block; the journal has only its checksum
  in_file,  // replay: the chunk file holds it already, only the table does not say so
  journal,  // replay: the block is in the journal file at `journal_at`
  torn,     // replay: what the file holds is neither this nor the previous content
};

/// Content of one block that its chunk file does not have yet.
struct Staged {
  Block_record record;
  Stamp writer_stamp;       // highest of a writer's among this and what it superseded
  Lsn lsn = 0;              // behind its record
  Staged* older = nullptr;  // what a running commit still covers
  Slice data;
  std::uint64_t journal_at = 0;
  Staged_kind kind = Staged_kind::data;
  bool doubtful = false;  // replay: a later large write may have been in the file instead
};

/// The staged blocks of a page, newest first in each chain.
struct Staged_page {
  std::array<Staged*, page_blocks> newest{};
  std::bitset<page_blocks> present;
  std::size_t count = 0;  // of blocks
  Lsn oldest = 0;         // a lower bound of the LSNs in here
};

using Hook =
    boost::intrusive::list_member_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>>;

/// page_blocks blocks of a chunk.
struct Page {
  Page(Chunk& owner, std::uint32_t number) : chunk(owner), index(number) {}
  Chunk& chunk;
  std::uint32_t index;
  std::unique_ptr<Table> table;         // null: not in memory
  std::unique_ptr<Staged_page> staged;  // null: nothing
  bool dirty = false;                   // the table in memory is newer than the file's
  bool on_disk = true;                  // false: certainly never stored, needs no reading
  bool loading = false;
  Hook by_use;    // least recently used first; only with a table
  Hook to_apply;  // has staged blocks
};

struct Chunk {
  Chunk_id id;
  Replica replica;
  Epoch const* seal = nullptr;  // of its file; set by the first open in this process
  std::uint32_t damage_seen = 0;
  Lsn created_lsn = 0;
  Lsn cleaned_lsn = 0;  // of the write that ended `unclean`
  Stamp applied_stamp;  // highest writer's stamp that is durable
  std::bitset<pages_max> stored_pages;
  std::bitset<pages_max> storing_pages;  // become stored_pages with the sync under way
  std::vector<std::unique_ptr<Page>> pages;

  std::unique_ptr<File> file;  // null: closed
  bool fresh = false;          // made in this process: no table page was ever stored before
  std::uint64_t changes = 0;   // of the file's data by apply
  bool name_durable = true;    // the directory entry has been synced
  std::uint32_t name_syncs = 0;
  bool removed = false;
  std::uint32_t io_in_flight = 0;
  Lsn large_lsn = 0;            // of the last large write
  Lsn large_placed = 0;         // of the last large write that has been put in place
  bool large_dirty = false;     // a large write was put in place since the last sync began
  bool large_unsynced = false;  // ... since the last sync that has ended began
  // A block: number of the file's sync that makes the last large write to it durable; 0 when a
  // later record holds the content. Empty: no such blocks.
  std::vector<std::uint64_t> large_sync;
  static constexpr std::uint64_t not_in_place = ~std::uint64_t{0};
  std::uint64_t large_bytes = 0;    // put in place since the last sync began
  std::uint64_t syncs_started = 0;  // one at a time
  std::uint64_t syncs_done = 0;
  bool sync_again = false;

  bool is_syncing_file() const { return syncs_started != syncs_done; }
  /// The number of the sync that covers what has been written until now.
  std::uint64_t next_sync() const { return syncs_started + 1; }
  Hook by_use;  // open files, least recently used first
  Hook dirty;   // the file, its table or its header has something unsynced

  Staged const* staged_block(std::uint32_t block) const {
    Page const* page = pages[block / page_blocks].get();
    if (page == nullptr || !page->staged) return nullptr;
    return page->staged->newest[block % page_blocks];
  }
};

template <typename T, Hook T::*member>
using Hook_list = boost::intrusive::list<T, boost::intrusive::member_hook<T, Hook, member>,
                                         boost::intrusive::constant_time_size<false>>;

}  // namespace pstorage::cs
