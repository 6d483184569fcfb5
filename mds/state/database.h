// A thin, exception-free cover over SQLite for one single-threaded owner: cached statements, typed
// binding, and an error that sticks until the transaction is rolled back, so that the state machine
// checks once a batch instead of after every row.
#pragma once

#include <concepts>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace pstorage::mds {

class Database;

/// Bytes bound as a BLOB.
struct Blob {
  std::string_view bytes;
};

/// Rows of one running query. After an error it simply has no more rows.
class Rows {
 public:
  Rows(Database& database, char const* sql);
  ~Rows();
  Rows(Rows const&) = delete;
  Rows& operator=(Rows const&) = delete;

  /// Steps to the next row; false when there is none or the database has failed.
  bool next();
  std::uint64_t u64(int column) const;
  std::uint32_t u32(int column) const { return static_cast<std::uint32_t>(u64(column)); }
  bool flag(int column) const { return u64(column) != 0; }
  std::string text(int column) const;

  template <typename Value>
  void bind(int position, Value const& value) {
    if constexpr (std::integral<Value>) {
      bind_integer(position, static_cast<std::uint64_t>(value));
    } else if constexpr (std::same_as<Value, Blob>) {
      bind_blob(position, value.bytes);
    } else if constexpr (requires { value.value; }) {
      bind_integer(position, static_cast<std::uint64_t>(value.value));
    } else {
      bind_text(position, value);
    }
  }

 private:
  void bind_integer(int position, std::uint64_t value);
  void bind_text(int position, std::string_view value);
  void bind_blob(int position, std::string_view value);

  Database& database_;
  char const* sql_;
  sqlite3_stmt* statement_;
};

class Database {
 public:
  /// Opens (creates) the file at `path`; ":memory:" for one without. WAL, synchronous=NORMAL: a
  /// power loss may take back transactions since the last checkpoint; the log has them.
  static Outcome<std::unique_ptr<Database>> open(std::string const& path);
  ~Database();
  Database(Database const&) = delete;
  Database& operator=(Database const&) = delete;

  /// Runs a statement that returns no rows. `sql` must be a literal: it is the key of the cache.
  template <typename... Values>
  void run(char const* sql, Values const&... values) {
    Rows rows(*this, sql);
    int position = 0;
    (rows.bind(++position, values), ...);
    rows.next();
  }
  /// First column of the first row, or `fallback`.
  template <typename... Values>
  std::uint64_t number(char const* sql, std::uint64_t fallback, Values const&... values) {
    Rows rows(*this, sql);
    int position = 0;
    (rows.bind(++position, values), ...);
    return rows.next() ? rows.u64(0) : fallback;
  }
  /// Rows changed by the last statement.
  std::uint64_t changes() const;
  /// Rows changed since the database was opened.
  std::uint64_t total_changes() const;

  bool failed() const { return static_cast<bool>(error_); }
  /// Rolls the transaction back and returns (and forgets) the error.
  Failure take_error();
  /// Writes the write-ahead log of the database file at `path` back into it, with syncs, through a
  /// connection of its own. True: all that was committed before the call is there. Thread: any,
  /// also beside the owner's.
  static Outcome<bool> checkpoint(std::string const& path);
  /// Bytes of the write-ahead log. It begins anew with the first commit after all of it was written
  /// back.
  std::uint64_t wal_bytes() const { return wal_pages_ * page_bytes_; }

 private:
  friend class Rows;
  explicit Database(sqlite3* handle) : handle_(handle) {}
  sqlite3_stmt* acquire(char const* sql);
  void release(char const* sql, sqlite3_stmt* statement);
  void set_error(int code);
  static int on_wal(void* self, sqlite3* handle, char const* name, int pages);

  sqlite3* handle_;
  // A running statement cannot be run again (recursion over directories): hence a list each.
  std::map<char const*, std::vector<sqlite3_stmt*>> idle_;
  std::error_code error_;
  std::string error_text_;
  std::uint64_t wal_pages_ = 0;
  std::uint64_t page_bytes_ = 4096;
};

}  // namespace pstorage::mds
