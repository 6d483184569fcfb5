#include "mds/state/schema.h"

namespace pstorage::mds {
namespace {

constexpr char const* tables[] = {
    "CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, number INTEGER NOT NULL DEFAULT 0,"
    " text TEXT NOT NULL DEFAULT '') WITHOUT ROWID",

    "CREATE TABLE IF NOT EXISTS config(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",

    "CREATE TABLE IF NOT EXISTS inode(id INTEGER PRIMARY KEY, type INTEGER NOT NULL,"
    " size INTEGER NOT NULL, links INTEGER NOT NULL, norm INTEGER NOT NULL, min INTEGER NOT NULL,"
    " domain INTEGER NOT NULL, tier INTEGER NOT NULL, chunk_size INTEGER NOT NULL,"
    " ssd_cache INTEGER NOT NULL, modified_ms INTEGER NOT NULL, chunks INTEGER NOT NULL,"
    " mode INTEGER NOT NULL DEFAULT 0, uid INTEGER NOT NULL DEFAULT 0,"
    " gid INTEGER NOT NULL DEFAULT 0, modified_sub_ns INTEGER NOT NULL DEFAULT 0,"
    " changed_ms INTEGER NOT NULL DEFAULT 0)",

    "CREATE TABLE IF NOT EXISTS dirent(parent INTEGER NOT NULL, name TEXT NOT NULL,"
    " inode INTEGER NOT NULL, PRIMARY KEY(parent, name)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS dirent_inode ON dirent(inode)",

    "CREATE TABLE IF NOT EXISTS property(inode INTEGER NOT NULL, name TEXT NOT NULL,"
    " value TEXT NOT NULL, PRIMARY KEY(inode, name)) WITHOUT ROWID",

    "CREATE TABLE IF NOT EXISTS chunk(id INTEGER PRIMARY KEY, file INTEGER NOT NULL,"
    " position INTEGER NOT NULL, version INTEGER NOT NULL, state INTEGER NOT NULL)",
    "CREATE UNIQUE INDEX IF NOT EXISTS chunk_file ON chunk(file, position)",
    "CREATE INDEX IF NOT EXISTS chunk_state ON chunk(state, id) WHERE state <> 0",

    "CREATE TABLE IF NOT EXISTS replica(chunk INTEGER NOT NULL, cs INTEGER NOT NULL,"
    " state INTEGER NOT NULL, PRIMARY KEY(chunk, cs)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS replica_cs ON replica(cs, state, chunk)",

    "CREATE TABLE IF NOT EXISTS host(id INTEGER PRIMARY KEY, name TEXT NOT NULL,"
    " location TEXT NOT NULL)",

    "CREATE TABLE IF NOT EXISTS mds(id INTEGER PRIMARY KEY, member INTEGER NOT NULL UNIQUE,"
    " address TEXT NOT NULL UNIQUE, host INTEGER NOT NULL, host_name TEXT NOT NULL)",

    "CREATE TABLE IF NOT EXISTS cs(id INTEGER PRIMARY KEY, repository TEXT NOT NULL,"
    " host INTEGER NOT NULL, tier INTEGER NOT NULL, state TEXT NOT NULL,"
    " incarnation INTEGER NOT NULL, addresses TEXT NOT NULL, total INTEGER NOT NULL,"
    " free INTEGER NOT NULL, flags TEXT NOT NULL)",

    // Chunk servers on their way out. Apart from cs.state, which tells whether they answer.
    "CREATE TABLE IF NOT EXISTS release(cs INTEGER PRIMARY KEY, forced INTEGER NOT NULL,"
    " since_ms INTEGER NOT NULL)",

    "CREATE TABLE IF NOT EXISTS session(id INTEGER PRIMARY KEY, name TEXT NOT NULL,"
    " host INTEGER NOT NULL, role INTEGER NOT NULL, opened_ms INTEGER NOT NULL,"
    " acked_below INTEGER NOT NULL)",

    "CREATE TABLE IF NOT EXISTS lease(file INTEGER PRIMARY KEY, session INTEGER NOT NULL,"
    " epoch INTEGER NOT NULL, sealed INTEGER NOT NULL, fenced INTEGER NOT NULL,"
    " settling INTEGER NOT NULL DEFAULT 0)",
    "CREATE INDEX IF NOT EXISTS lease_session ON lease(session)",

    // Files taken from a live session, until the next writer has waited for its reads to end.
    "CREATE TABLE IF NOT EXISTS revoked(file INTEGER NOT NULL, session INTEGER NOT NULL,"
    " PRIMARY KEY(file, session)) WITHOUT ROWID",

    // Files whose last writer has closed them: the epoch under which they may be read.
    "CREATE TABLE IF NOT EXISTS reading(file INTEGER PRIMARY KEY, epoch INTEGER NOT NULL)",

    "CREATE TABLE IF NOT EXISTS event(number INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL,"
    " source TEXT NOT NULL, severity TEXT NOT NULL, text TEXT NOT NULL)",

    "CREATE TABLE IF NOT EXISTS garbage(chunk INTEGER NOT NULL, cs INTEGER NOT NULL,"
    " PRIMARY KEY(chunk, cs)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS garbage_cs ON garbage(cs, chunk)",

    "CREATE TABLE IF NOT EXISTS reply(session INTEGER NOT NULL, sequence INTEGER NOT NULL,"
    " reply BLOB NOT NULL, PRIMARY KEY(session, sequence)) WITHOUT ROWID",
};

// Of files that mounts use.
constexpr char const* mount_tables[] = {
    // Sessions that have a file open for reading only; never beside a lease of another session.
    "CREATE TABLE IF NOT EXISTS reader(file INTEGER NOT NULL, session INTEGER NOT NULL,"
    " PRIMARY KEY(file, session)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS reader_session ON reader(session, file)",

    "CREATE TABLE IF NOT EXISTS symlink(inode INTEGER PRIMARY KEY, target TEXT NOT NULL)",
};

// What version 1 lacks or has otherwise; its tables are otherwise those above. One session a file
// was enough for `revoked` then.
constexpr char const* from_version_1[] = {
    "ALTER TABLE inode ADD COLUMN mode INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE inode ADD COLUMN uid INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE inode ADD COLUMN gid INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE inode ADD COLUMN modified_sub_ns INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE inode ADD COLUMN changed_ms INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE revoked RENAME TO revoked_1",
    "CREATE TABLE revoked(file INTEGER NOT NULL, session INTEGER NOT NULL,"
    " PRIMARY KEY(file, session)) WITHOUT ROWID",
    "INSERT INTO revoked SELECT file, session FROM revoked_1",
    "DROP TABLE revoked_1",
};

constexpr char const* from_version_2[] = {
    "ALTER TABLE lease ADD COLUMN settling INTEGER NOT NULL DEFAULT 0",
};

}  // namespace

Outcome<void> prepare_schema(Database& database) {
  database.run("BEGIN IMMEDIATE");
  for (auto const* const table : tables) database.run(table);
  for (auto const* const table : mount_tables) database.run(table);
  auto found = database.number("SELECT number FROM meta WHERE name = 'schema'", schema_version);
  if (found == 1) {
    for (auto const* const change : from_version_1) database.run(change);
    found = 2;
  }
  if (found == 2) {
    for (auto const* const change : from_version_2) database.run(change);
    found = 3;
  }
  database.run("UPDATE meta SET number = ? WHERE name = 'schema' AND number < ?", found, found);
  database.run("INSERT OR IGNORE INTO meta(name, number) VALUES('schema', ?)", schema_version);
  database.run("COMMIT");
  if (database.failed()) return database.take_error();
  if (found != schema_version) {
    return failure(Errc::wrong_version,
                   "the metadata database has format " + std::to_string(found) + ", this mdsd " +
                       "knows format " + std::to_string(schema_version) + ": use a newer mdsd");
  }
  return success();
}

}  // namespace pstorage::mds
