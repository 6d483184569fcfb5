#include "mds/state/database.h"

#include <sqlite3.h>

#include <memory>

namespace pstorage::mds {
namespace {

Errc errc_of_sqlite(int code) {
  switch (code & 0xff) {
    case SQLITE_FULL:
      return Errc::no_space;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Errc::corrupt;
    case SQLITE_READONLY:
      return Errc::read_only;
    default:
      return Errc::io_error;
  }
}

}  // namespace

Rows::Rows(Database& database, char const* sql)
    : database_(database), sql_(sql), statement_(database.acquire(sql)) {}

Rows::~Rows() {
  if (statement_ != nullptr) database_.release(sql_, statement_);
}

bool Rows::next() {
  if (statement_ == nullptr || database_.failed()) return false;
  int const code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) database_.set_error(code);
  return false;
}

std::uint64_t Rows::u64(int column) const {
  return static_cast<std::uint64_t>(sqlite3_column_int64(statement_, column));
}

std::string Rows::text(int column) const {
  auto const* const data = static_cast<char const*>(sqlite3_column_blob(statement_, column));
  auto const size = static_cast<std::size_t>(sqlite3_column_bytes(statement_, column));
  return data == nullptr ? std::string() : std::string(data, size);
}

void Rows::bind_integer(int position, std::uint64_t value) {
  if (statement_ == nullptr) return;
  sqlite3_bind_int64(statement_, position, static_cast<sqlite3_int64>(value));
}

// SQLITE_TRANSIENT copies: the values are small and a reset statement must not point into them.
void Rows::bind_text(int position, std::string_view value) {
  if (statement_ == nullptr) return;
  sqlite3_bind_text64(statement_, position, value.empty() ? "" : value.data(), value.size(),
                      SQLITE_TRANSIENT, SQLITE_UTF8);
}

void Rows::bind_blob(int position, std::string_view value) {
  if (statement_ == nullptr) return;
  sqlite3_bind_blob64(statement_, position, value.empty() ? "" : value.data(), value.size(),
                      SQLITE_TRANSIENT);
}

Outcome<std::unique_ptr<Database>> Database::open(std::string const& path) {
  sqlite3* handle = nullptr;
  int const flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  int const code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  std::unique_ptr<Database> database(new Database(handle));
  if (code != SQLITE_OK) {
    return failure(errc_of_sqlite(code),
                   "cannot open the database " + path + ": " + sqlite3_errstr(code));
  }
  sqlite3_extended_result_codes(handle, 1);
  // Checkpoints are ours: the log may be cut only below one that we know to be durable.
  static constexpr char const* settings[] = {
      "PRAGMA journal_mode=WAL",     "PRAGMA synchronous=NORMAL", "PRAGMA foreign_keys=OFF",
      "PRAGMA wal_autocheckpoint=0", "PRAGMA cache_size=-32768",  "PRAGMA temp_store=MEMORY",
  };
  for (auto const* const setting : settings) {
    if (int const set = sqlite3_exec(handle, setting, nullptr, nullptr, nullptr);
        set != SQLITE_OK) {
      return failure(errc_of_sqlite(set),
                     "cannot use the database " + path + ": " + sqlite3_errmsg(handle));
    }
  }
  sqlite3_wal_hook(handle, &Database::on_wal, database.get());
  return database;
}

Database::~Database() {
  for (auto const& [sql, statements] : idle_) {
    for (auto* const statement : statements) sqlite3_finalize(statement);
  }
  sqlite3_close(handle_);
}

sqlite3_stmt* Database::acquire(char const* sql) {
  if (failed()) return nullptr;
  auto& idle = idle_[sql];
  if (!idle.empty()) {
    auto* const statement = idle.back();
    idle.pop_back();
    return statement;
  }
  sqlite3_stmt* statement = nullptr;
  int const code =
      sqlite3_prepare_v3(handle_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (code != SQLITE_OK) set_error(code);
  return statement;
}

void Database::release(char const* sql, sqlite3_stmt* statement) {
  sqlite3_reset(statement);
  sqlite3_clear_bindings(statement);
  idle_[sql].push_back(statement);
}

void Database::set_error(int code) {
  if (failed()) return;
  error_ = make_error_code(errc_of_sqlite(code));
  error_text_ = sqlite3_errmsg(handle_);
}

std::uint64_t Database::changes() const {
  return static_cast<std::uint64_t>(sqlite3_changes64(handle_));
}

std::uint64_t Database::total_changes() const {
  return static_cast<std::uint64_t>(sqlite3_total_changes64(handle_));
}

Failure Database::take_error() {
  Failure taken = failure(error_, "database: " + error_text_);
  error_ = {};
  error_text_.clear();
  if (sqlite3_get_autocommit(handle_) == 0) {
    sqlite3_exec(handle_, "ROLLBACK", nullptr, nullptr, nullptr);
  }
  return taken;
}

Outcome<bool> Database::checkpoint(std::string const& path) {
  sqlite3* handle = nullptr;
  int const flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
  int code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  std::unique_ptr<sqlite3, decltype(&sqlite3_close)> const closer(handle, &sqlite3_close);
  int in_log = 0;
  int written = 0;
  // Only after it has read something does a connection know that there is a log.
  if (code == SQLITE_OK) {
    code = sqlite3_exec(handle, "PRAGMA schema_version", nullptr, nullptr, nullptr);
  }
  if (code == SQLITE_OK) {
    code = sqlite3_wal_checkpoint_v2(handle, nullptr, SQLITE_CHECKPOINT_PASSIVE, &in_log, &written);
  }
  if (code == SQLITE_BUSY) return false;
  if (code != SQLITE_OK) {
    return failure(errc_of_sqlite(code),
                   std::string("cannot write the database back: ") + sqlite3_errmsg(handle));
  }
  return in_log >= 0 && in_log == written;
}

int Database::on_wal(void* self, sqlite3*, char const*, int pages) {
  static_cast<Database*>(self)->wal_pages_ = static_cast<std::uint64_t>(pages);
  return SQLITE_OK;
}

}  // namespace pstorage::mds
