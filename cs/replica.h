// What one replica of one chunk accepts: the rules of core/format.md "Replica at a CS", and nothing
// else. Pure.
#pragma once

#include <cstdint>

#include "core/errc.h"
#include "core/ids.h"
#include "core/net/message.h"

namespace pstorage::cs {

/// How a writer opened the chunk (Open_chunks).
struct Open_terms {
  Epoch epoch;
  Version version;
  bool syncing = false;
  Stamp join_stamp;  // syncing: every write from this stamp on is sent here too
};

enum class Verdict : unsigned char { apply, duplicate, refuse };

class Replica {
 public:
  File_id file;
  std::uint32_t chunk_size = 0;
  Version version;       // stored; never falls
  Stamp last_stamp;      // highest accepted from a writer, in any process
  bool unclean = false;  // an earlier process may have lost unsynced writes of it
  bool syncing = false;  // being filled: takes writes, serves no reads, is no source
  Stamp join_stamp;      // syncing and a writer has joined; else 0

  /// Open_chunks. Errors: stale_version, bad_request (chunk size, stamp of another epoch). A
  /// repeated open of the same epoch and version changes nothing.
  Errc open(Open_terms const& terms, std::uint32_t size);
  /// The newcomer's side of a sync begins at `to`; until a writer opens the chunk nobody may use
  /// it. Errors: stale_version.
  Errc begin_sync(Version to);

  /// Epoch and version of a data request. `seal`: lowest epoch of the file.
  Errc check_open(Header const& header, Epoch seal) const;
  /// Errors as check_open, bad_request for a stamp of another epoch.
  Verdict check_write(Header const& header, Epoch seal, Errc& why) const;
  Errc check_read(Header const& header, Epoch seal) const;
  /// From a client; allowed on syncing replicas.
  Errc check_table(Header const& header, Epoch seal) const;
  /// From another CS. header.version is not 0 when a writer has joined the asker: the answer then
  /// must come from a replica that the writer has opened at that version too, or writes below the
  /// join stamp could still be on their way to it.
  Errc check_pull(Header const& header, Operation operation) const;

  /// A write or zero was accepted. It proves that the writer has reconciled the replicas.
  void accepted(Stamp stamp);

  /// Blocks were given stamps that did not come with the writer's sequence. Until the next accepted
  /// write nobody knows whether the other replicas got the same: equal last stamps prove nothing.
  void repaired() { unclean = true; }
  /// A sync is complete: the replica holds what the source did, of which `highest` was the newest,
  /// and what the joined writer has sent. Its own past counts no more, even where that was newer.
  void synced(Stamp highest);

  bool is_open() const { return open_; }
  Epoch open_epoch() const { return open_epoch_; }
  bool has_writer() const { return open_ && syncing && join_stamp.value != 0; }

 private:
  bool in_range(Header const& header) const;

  bool open_ = false;  // in this process
  Epoch open_epoch_;
  Version open_version_;
  Stamp open_stamp_;  // last one accepted in this open
};

}  // namespace pstorage::cs
