#include "mds/raft/database_snapshot.h"

#include <sqlite3.h>

#include <utility>

namespace pstorage::mds::raft {
namespace {

constexpr int pages_a_tick = 256;  // 1 MiB, about a millisecond

/// The first column of the first row; nothing on any error.
bool read_number(sqlite3* database, char const* sql, std::uint64_t& number) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(database, sql, -1, &statement, nullptr) != SQLITE_OK) return false;
  bool const is_found = sqlite3_step(statement) == SQLITE_ROW;
  if (is_found) number = static_cast<std::uint64_t>(sqlite3_column_int64(statement, 0));
  sqlite3_finalize(statement);
  return is_found;
}

}  // namespace

Database_snapshot_source::Database_snapshot_source(Disk& disk, std::string directory,
                                                   std::string name, Log& log)
    : disk_(disk), directory_(std::move(directory)), name_(std::move(name)), log_(log) {}

Database_snapshot_source::~Database_snapshot_source() { close(); }

void Database_snapshot_source::open(Opened done) {
  waiting_.push_back(std::move(done));
  if (backup_ != nullptr) return;  // a copy under way will do
  auto const begun = begin();
  if (!begun.has_value()) finish(false);
}

Result<void> Database_snapshot_source::begin() {
  copy_ = name_ + ".copy-" + std::to_string(++copies_);
  if (disk_.exists(copy_)) PS_CHECK(disk_.remove(copy_));  // of a process that was killed
  auto const from = directory_ + "/" + name_;
  auto const to = directory_ + "/" + copy_;
  constexpr int writing = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  // The transaction holds the database as it is now; checkpoints go on up to here.
  bool const is_open =
      sqlite3_open_v2(from.c_str(), &from_, SQLITE_OPEN_READWRITE, nullptr) == SQLITE_OK &&
      sqlite3_open_v2(to.c_str(), &to_, writing, nullptr) == SQLITE_OK &&
      sqlite3_exec(to_, "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF", nullptr, nullptr,
                   nullptr) == SQLITE_OK &&
      sqlite3_exec(from_, "BEGIN", nullptr, nullptr, nullptr) == SQLITE_OK &&
      read_number(from_, "SELECT number FROM meta WHERE name = 'applied'", index_);
  if (is_open) backup_ = sqlite3_backup_init(to_, "main", from_, "main");
  if (backup_ != nullptr) return success();
  log_.error("cannot copy the metadata database",
             {{"error", to_ != nullptr ? sqlite3_errmsg(to_) : sqlite3_errmsg(from_)}});
  return Errc::io_error;
}

void Database_snapshot_source::on_tick() {
  if (backup_ == nullptr) return;
  auto const code = sqlite3_backup_step(backup_, pages_a_tick);
  if (code == SQLITE_OK || code == SQLITE_BUSY || code == SQLITE_LOCKED) return;
  if (code != SQLITE_DONE) {
    log_.error("cannot copy the metadata database", {{"error", sqlite3_errstr(code)}});
  }
  finish(code == SQLITE_DONE);
}

void Database_snapshot_source::close() {
  if (backup_ != nullptr) sqlite3_backup_finish(backup_);
  sqlite3_close(to_);
  sqlite3_close(from_);
  backup_ = nullptr;
  to_ = from_ = nullptr;
}

void Database_snapshot_source::finish(bool is_ok) {
  close();
  for (auto& done : std::exchange(waiting_, {})) {
    if (is_ok) {
      done(File_snapshot_reader::open(disk_, copy_, index_));
    } else {
      done(Errc::io_error);
    }
  }
  // The readers have it open; nobody else needs the name.
  if (disk_.exists(copy_)) (void)disk_.remove(copy_);
}

}  // namespace pstorage::mds::raft
