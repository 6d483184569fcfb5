// What a chunk server does with its repository before it serves anything.
#pragma once

#include <cstdint>
#include <map>
#include <set>

#include "core/result.h"
#include "cs/journal.h"
#include "cs/store.h"

namespace pstorage::cs {

/// Replays the journal: blocks of small writes come from the journal, blocks of large writes are
/// compared with the chunk file, where they lie or do not. Two passes, because applying an old
/// record could overwrite what a later large write has already put in place: all records are staged
/// first, then everything is applied and made durable, then the journal starts anew. A crash at any
/// point repeats the same from the same tail. Blocking.
class Recovery {
 public:
  explicit Recovery(Store& store) : store_(store) {}
  Outcome<void> run();

 private:
  Outcome<void> open_journal();
  Outcome<void> replay();
  void visit(Journal::Visited const& visited);
  void visit_open(Journal::Visited const& visited);
  void visit_remove(Chunk_id id, Lsn end);
  void visit_data(Chunk& chunk, Journal::Visited const& visited);
  void replay_block(Chunk& chunk, std::uint32_t block, Lsn lsn, Block_record const& record,
                    std::uint64_t journal_at);
  void replay_large(Chunk& chunk, std::uint32_t block, Lsn lsn, Block_record const& record,
                    bool is_write);
  void visit_synced(Chunk& chunk, Lsn covered);
  void lower_stamps();
  Result<Chunk*> chunk_of(Chunk_id id);
  Result<void> apply_all();
  Result<void> make_durable();
  void note_error(std::error_code error) {
    if (!error_) error_ = error;
  }

  Store& store_;
  std::set<Chunk_id> missing_;  // have records but no valid file
  struct Missing {
    Lsn lsn = 0;
    Block_record record;
    bool is_write = false;
  };
  // Blocks of large writes whose data is not in the chunk file, and nothing later is.
  std::map<std::pair<Chunk_id, std::uint32_t>, Missing> missing_data_;
  std::uint32_t torn_ = 0;
  std::error_code error_;  // first failure of the disk while replaying
};

}  // namespace pstorage::cs
