// The journal of a repository: a preallocated ring file. Appending stages, write_out() makes a
// turn's records survive the process, commit() makes them survive the machine.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/env/disk.h"
#include "cs/layout.h"

namespace pstorage::cs {

/// One journal file. Not thread-safe; callbacks on the owner's loop. Format: cs/format.md.
class Journal {
 public:
  /// Told when more is durable, or that a write or sync failed (once; nothing is accepted after).
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void on_durable(Lsn durable) = 0;
    virtual void on_journal_failed(std::error_code error) = 0;
  };

  explicit Journal(std::unique_ptr<File> file) : file_(std::move(file)) {}
  ~Journal();
  Journal(Journal const&) = delete;
  Journal& operator=(Journal const&) = delete;

  /// Fills a new file with zeros (an unwritten extent would make every append a metadata commit)
  /// and writes the first super block; durable. Blocking. `progress`: bytes written so far.
  /// `first`: LSN to begin with, above that of any journal that the repository had before.
  static Result<void> format(File& file, std::uint64_t ring_bytes, std::uint64_t salt,
                             std::function<void(std::uint64_t)> const& progress, Lsn first = 0);

  /// Reads the super block. Errors: corrupt (not a journal, or another repository's).
  Result<void> open(std::uint64_t salt);
  Journal_super const& super() const { return super_; }

  // ---- recovery, blocking

  struct Visited {
    Record_header header;
    Bytes body;
    Lsn end = 0;                // behind the record
    std::uint64_t data_at = 0;  // offset of the inline data in the file
    Bytes data;                 // inline data, verified against the checksums in the body
  };
  struct Scan_result {
    Lsn end = 0;  // where the valid records stop
    std::uint64_t records = 0;
    std::uint32_t damaged = 0;  // durable records that are not valid any more
  };
  /// Calls `visit` for every valid record from the tail on, in order.
  Result<Scan_result> scan(std::function<void(Visited const&)> const& visit);
  /// Reads `to.size()` bytes of inline data that scan() reported at `data_at`.
  Result<void> read_data(std::uint64_t data_at, Mutable_bytes to);
  /// Starts an empty journal behind everything that may still lie in the ring; durable.
  Result<void> restart(Lsn scanned_end, std::uint32_t damage);
  /// Marks an orderly stop. Everything has been applied and the tail is the head. Blocking.
  Result<void> mark_clean();

  // ---- appending

  void set_listener(Listener* listener) { listener_ = listener; }
  /// Can records of `bytes` in total (headers included) be appended now? Otherwise wait for the
  /// tail.
  bool has_room(std::uint64_t bytes) const;
  /// Stages a record; `data` is kept until it has been written. Returns the LSN behind the record.
  Lsn append(Record const& record, Bytes body, Slice data);
  /// One gathered write of all staged records. Errors: the disk's, also of earlier calls.
  Result<void> write_out();
  /// Asks for durability of everything appended so far; on_durable tells. Commits in one go with
  /// what else is asked for while an earlier commit runs.
  void commit();
  /// Writes a block that says nothing and asks for its durability: measures the disk.
  void probe();
  /// Recovery may start here; the space before it is free once that is durable (with a commit).
  void set_tail(Lsn tail);

  Lsn appended() const { return head_; }
  Lsn durable() const { return durable_; }
  Lsn tail() const { return super_.tail; }
  /// Everything that a running commit will make durable; records from here on may be superseded.
  Lsn frozen() const { return frozen_; }
  bool is_committing() const { return committing_; }
  bool failed() const { return bool(error_); }
  std::uint64_t ring_bytes() const { return super_.ring_bytes; }
  std::uint64_t used_bytes() const { return head_ - super_.tail; }
  std::uint64_t uncommitted_bytes() const { return head_ - frozen_; }
  std::uint64_t commits() const { return commits_; }

 private:
  static constexpr std::size_t arena_bytes = 256u << 10;
  static constexpr std::size_t pieces_max = 960;  // below IOV_MAX with what one record adds

  std::uint64_t physical(Lsn lsn) const { return ring_offset + lsn % super_.ring_bytes; }
  std::uint64_t to_ring_end(Lsn lsn) const { return super_.ring_bytes - lsn % super_.ring_bytes; }
  std::byte* take(std::size_t bytes);
  void add_piece(Bytes piece);
  void skip(std::uint64_t bytes);
  void pad_to_block();
  void start_commit();
  void commit_done(Lsn target, bool with_super, Result<void> const& result);
  void fail(std::error_code error);
  Result<void> write_super(Journal_super const& super);
  bool read_ring(std::uint64_t at, Mutable_bytes to);
  bool read_record(Lsn lsn, Visited& visited, std::vector<std::byte>& buffer);
  bool data_matches(Visited const& visited) const;
  Lsn find_later(Lsn lost);

  std::unique_ptr<File> file_;
  Listener* listener_ = nullptr;
  Journal_super super_;  // as durable
  Journal_super next_super_;
  bool super_changed_ = false;
  Lsn head_ = 0;  // where the next record goes
  Lsn written_ = 0;
  Lsn durable_ = 0;
  Lsn frozen_ = 0;
  Lsn wanted_ = 0;  // durability has been asked for up to here
  bool committing_ = false;
  std::error_code error_;
  std::error_code scan_error_;  // the journal cannot be read: not the same as a torn end
  std::uint64_t commits_ = 0;

  std::unique_ptr<std::byte[]> arena_ = std::make_unique<std::byte[]>(arena_bytes);
  std::size_t arena_used_ = 0;
  std::vector<Bytes> pieces_;
  std::vector<Slice> held_;  // payload of the staged records
};

}  // namespace pstorage::cs
