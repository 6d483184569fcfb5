// The metadata state machine: committed entries become rows. Deterministic: the same log gives the
// same database on every member, whatever the batches.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "mds.pb.h"
#include "mds/replicated_log.h"
#include "mds/state/context.h"
#include "mds/state/database.h"

namespace pstorage::mds {

/// What became of one entry.
struct Applied_entry {
  std::uint64_t index = 0;
  proto::Mds_reply reply;
  bool is_repeated = false;  // the stored answer of a command that has come again
};

/// Thread: one owner.
class State_machine {
 public:
  /// `path`: of the SQLite file; ":memory:" when the whole log is replayed at each start.
  static Outcome<std::unique_ptr<State_machine>> open(std::string const& path);

  /// Index of the last applied entry; 0 = none.
  std::uint64_t applied() const { return applied_; }
  /// Index up to which the database file itself is durable: the log may be cut to here.
  std::uint64_t durable() const { return durable_; }
  /// Applies the first of `entries` (in order, the next indexes) in one transaction: at least one,
  /// and more until `rows_max` rows have been changed. Returns those. After a Failure none is
  /// applied; the same call may be repeated. Errors: no_space, io_error, corrupt.
  Outcome<std::vector<Applied_entry>> apply(std::span<Committed_entry const> entries,
                                            Effects& effects, std::uint64_t rows_max = 4096);
  /// The database file is durable up to `applied`: Database::checkpoint() has said so.
  void checkpointed(std::uint64_t applied) { durable_ = applied; }
  std::uint64_t wal_bytes() const { return database_->wal_bytes(); }

  /// For queries: read only.
  Database& database() { return *database_; }

 private:
  explicit State_machine(std::unique_ptr<Database> database) : database_(std::move(database)) {}
  void apply_entry(Committed_entry const& entry, Effects& effects, Applied_entry& applied);
  void apply_command(Context& context, proto::Mds_request const& request, Applied_entry& applied);

  std::unique_ptr<Database> database_;
  std::uint64_t applied_ = 0;
  std::uint64_t durable_ = 0;
};

}  // namespace pstorage::mds
