// Leases: who may write a file, and whether an earlier writer could still be doing it.
#include <cstdio>

#include "mds/state/chunks.h"
#include "mds/state/settings.h"

namespace pstorage::mds {

std::optional<Lease_row> load_lease(Database& database, File_id file) {
  Rows rows(database, "SELECT session, epoch, sealed, fenced, settling FROM lease WHERE file = ?");
  rows.bind(1, file);
  if (!rows.next()) return std::nullopt;
  return Lease_row{
      file, Session_id{rows.u64(0)}, Epoch{rows.u32(1)}, rows.flag(2), rows.flag(3), rows.flag(4)};
}

void store_lease(Context& context, Lease_row const& lease) {
  context.database.run(
      "INSERT OR REPLACE INTO lease(file, session, epoch, sealed, fenced, settling)"
      " VALUES(?, ?, ?, ?, ?, ?)",
      lease.file, lease.session, lease.epoch, lease.sealed, lease.fenced, lease.settling);
  context.effects.leases.insert(lease.file);
}

void remove_lease(Context& context, File_id file) {
  context.database.run("DELETE FROM lease WHERE file = ?", file);
  context.effects.leases.insert(file);
}

std::vector<Session_id> readers_of(Database& database, File_id file) {
  std::vector<Session_id> readers;
  Rows rows(database, "SELECT session FROM reader WHERE file = ? ORDER BY session");
  rows.bind(1, file);
  while (rows.next()) readers.push_back(Session_id{rows.u64(0)});
  return readers;
}

Epoch known_reading_epoch(Database& database, File_id file) {
  auto const known = database.number("SELECT epoch FROM reading WHERE file = ?", 0, file);
  return Epoch{static_cast<std::uint32_t>(known)};
}

bool is_reader(Database& database, File_id file, Session_id session) {
  return database.number("SELECT 1 FROM reader WHERE file = ? AND session = ?", 0, file, session) !=
         0;
}

void add_reader(Context& context, File_id file, Session_id session) {
  context.database.run("INSERT OR IGNORE INTO reader(file, session) VALUES(?, ?)", file, session);
}

void remove_reader(Context& context, File_id file, Session_id session) {
  context.database.run("DELETE FROM reader WHERE file = ? AND session = ?", file, session);
  if (is_in_use(context.database, file)) return;
  auto inode = load_inode(context.database, file);
  if (inode && inode->links == 0) delete_inode(context, *std::move(inode));
}

bool is_in_use(Database& database, File_id file) {
  auto const lease = load_lease(database, file);
  return (lease && lease->user()) ||
         database.number("SELECT 1 FROM reader WHERE file = ? LIMIT 1", 0, file) != 0;
}

void delete_inode(Context& context, Inode inode) {
  remove_chunks_from(context, inode, 0);
  context.database.run("DELETE FROM inode WHERE id = ?", inode.id);
  context.database.run("DELETE FROM property WHERE inode = ?", inode.id);
  context.database.run("DELETE FROM symlink WHERE inode = ?", inode.id);
  context.database.run("DELETE FROM reader WHERE file = ?", inode.id);
  context.database.run("DELETE FROM reading WHERE file = ?", inode.id);
  end_revocation(context.database, inode.id);
  if (load_lease(context.database, inode.id)) remove_lease(context, inode.id);
}

void change_inode(Context& context, Inode& inode, proto::Inode_change const& change) {
  if (change.has_mode()) inode.mode = change.mode();
  if (change.has_uid()) inode.uid = change.uid();
  if (change.has_gid()) inode.gid = change.gid();
  if (change.has_size() && change.size() <= file_bytes_max) inode.size = change.size();
  inode.changed_ms = context.wall_ms;
  if (change.has_modified_ms()) {
    inode.modified_ms = change.modified_ms();
    inode.modified_sub_ns = change.modified_sub_ns();
  }
}

std::vector<Session_id> revoked_sessions(Database& database, File_id file) {
  std::vector<Session_id> sessions;
  Rows rows(database, "SELECT session FROM revoked WHERE file = ? ORDER BY session");
  rows.bind(1, file);
  while (rows.next()) sessions.push_back(Session_id{rows.u64(0)});
  return sessions;
}

void note_revocation(Database& database, File_id file, Session_id from) {
  database.run("INSERT OR REPLACE INTO revoked(file, session) VALUES(?, ?)", file, from);
}

void end_revocation(Database& database, File_id file) {
  database.run("DELETE FROM revoked WHERE file = ?", file);
}

void end_lease(Context& context, Lease_row lease, bool clean) {
  auto inode = load_inode(context.database, lease.file);
  if (inode && inode->links == 0 && readers_of(context.database, lease.file).empty()) {
    delete_inode(context, *std::move(inode));
    return;
  }
  if (clean && lease.fenced) {
    remove_lease(context, lease.file);
    // What this holder had open may be read on, by it and by others.
    context.database.run("INSERT OR REPLACE INTO reading(file, epoch) VALUES(?, ?)", lease.file,
                         lease.epoch);
    return;
  }
  lease.session = {};
  lease.fenced = lease.settling = false;
  store_lease(context, lease);
}

Outcome<Lease_row> held_lease(Context& context, std::uint64_t file, std::uint32_t epoch) {
  auto const lease = load_lease(context.database, File_id{file});
  if (!lease || lease->session != context.session || !lease->session ||
      lease->epoch.value != epoch) {
    return failure(Errc::stale_epoch, "the lease of '" + path_of(context.database, File_id{file}) +
                                          "' (epoch " + std::to_string(epoch) +
                                          ") is not held by this client any " +
                                          "more: open the file again");
  }
  return *lease;
}

std::string describe_session(Database& database, Session_id session) {
  Rows rows(database, "SELECT name, host FROM session WHERE id = ?");
  rows.bind(1, session);
  if (!rows.next()) return {};
  return rows.text(0) + " on host " + host_text(Host_id{rows.u64(1)});
}

std::string name_for_people(Database& database, std::string const& path, File_id file) {
  return path.starts_with('@') ? path_of(database, file) : path;
}

Applied refuse_leased(Context& context, File_id file, std::string const& path,
                      std::string const& what) {
  auto const lease = load_lease(context.database, file);
  auto user = lease ? lease->user() : Session_id{};
  if (user == context.session) user = {};
  for (auto const reader : readers_of(context.database, file)) {
    if (!user && reader != context.session) user = reader;
  }
  if (!user) return success();
  return failure(Errc::busy, "cannot " + what + " '" +
                                 name_for_people(context.database, path, file) +
                                 "': it is in use by " + describe_session(context.database, user) +
                                 "; stop that first");
}

}  // namespace pstorage::mds
