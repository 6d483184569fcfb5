// Leases: who may write a file, and whether an earlier writer could still be doing it.
#include <cstdio>

#include "mds/state/chunks.h"
#include "mds/state/settings.h"

namespace pstorage::mds {

std::optional<Lease_row> load_lease(Database& database, File_id file) {
  Rows rows(database, "SELECT session, epoch, sealed, fenced FROM lease WHERE file = ?");
  rows.bind(1, file);
  if (!rows.next()) return std::nullopt;
  return Lease_row{file, Session_id{rows.u64(0)}, Epoch{rows.u32(1)}, rows.flag(2), rows.flag(3)};
}

void store_lease(Context& context, Lease_row const& lease) {
  context.database.run(
      "INSERT OR REPLACE INTO lease(file, session, epoch, sealed, fenced) VALUES(?, ?, ?, ?, ?)",
      lease.file, lease.session, lease.epoch, lease.sealed, lease.fenced);
  context.effects.leases.insert(lease.file);
}

void remove_lease(Context& context, File_id file) {
  context.database.run("DELETE FROM lease WHERE file = ?", file);
  end_revocation(context.database, file);
  context.effects.leases.insert(file);
}

Session_id revoked_session(Database& database, File_id file) {
  return Session_id{database.number("SELECT session FROM revoked WHERE file = ?", 0, file)};
}

void note_revocation(Database& database, File_id file, Session_id from) {
  database.run("INSERT OR REPLACE INTO revoked(file, session) VALUES(?, ?)", file, from);
}

void end_revocation(Database& database, File_id file) {
  database.run("DELETE FROM revoked WHERE file = ?", file);
}

void end_lease(Context& context, Lease_row lease, bool clean) {
  if (clean && lease.fenced) {
    remove_lease(context, lease.file);
    return;
  }
  lease.session = {};
  lease.fenced = false;
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

Applied refuse_leased(Context& context, File_id file, std::string const& path,
                      std::string const& what) {
  auto const lease = load_lease(context.database, file);
  if (!lease || !lease->session || lease->session == context.session) return success();
  return failure(Errc::busy, "cannot " + what + " '" + path + "': it is in use by " +
                                 describe_session(context.database, lease->session) +
                                 "; stop that first");
}

}  // namespace pstorage::mds
