// Online copies of the metadata database for members that are too far behind.
#pragma once

#include <string>
#include <vector>

#include "core/env/clock.h"
#include "core/log.h"
#include "mds/raft/snapshot.h"

struct sqlite3;
struct sqlite3_backup;

namespace pstorage::mds::raft {

/// Copies the SQLite file a few pages a tick, within one read transaction: the copy is the database
/// as it was applied at one index, while writes go on. Thread: the owner's loop.
class Database_snapshot_source final : public Snapshot_source, public Ticker {
 public:
  /// `directory`: where `disk` is; `name`: of the database in it.
  Database_snapshot_source(Disk& disk, std::string directory, std::string name, Log& log);
  ~Database_snapshot_source() override;

  void open(Opened done) override;
  void on_tick() override;

 private:
  Result<void> begin();
  void finish(bool is_ok);
  void close();

  Disk& disk_;
  std::string const directory_;
  std::string const name_;
  Log& log_;
  std::vector<Opened> waiting_;
  std::string copy_;  // name of the one that is being made
  std::uint64_t copies_ = 0;
  std::uint64_t index_ = 0;
  sqlite3* from_ = nullptr;
  sqlite3* to_ = nullptr;
  sqlite3_backup* backup_ = nullptr;
};

}  // namespace pstorage::mds::raft
