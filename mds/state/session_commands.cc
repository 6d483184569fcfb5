#include "mds/state/chunks.h"
#include "mds/state/commands.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

constexpr std::size_t session_name_bytes_max = 256;

std::vector<Lease_row> leases_of(Database& database, Session_id session) {
  std::vector<Lease_row> leases;
  Rows rows(database, "SELECT file FROM lease WHERE session = ? ORDER BY file");
  rows.bind(1, session);
  while (rows.next()) {
    if (auto lease = load_lease(database, File_id{rows.u64(0)})) leases.push_back(*lease);
  }
  return leases;
}

std::vector<File_id> read_by(Database& database, Session_id session) {
  std::vector<File_id> files;
  Rows rows(database, "SELECT file FROM reader WHERE session = ? ORDER BY file");
  rows.bind(1, session);
  while (rows.next()) files.push_back(File_id{rows.u64(0)});
  return files;
}

void forget_session(Context& context, Session_id session) {
  for (auto const file : read_by(context.database, session)) {
    remove_reader(context, file, session);
  }
  // It answers nothing any more: whoever comes next need not wait for it.
  context.database.run("DELETE FROM revoked WHERE session = ?", session);
  context.database.run("DELETE FROM reply WHERE session = ?", session);
  context.database.run("DELETE FROM session WHERE id = ?", session);
  context.effects.sessions.insert(session);
}

}  // namespace

Applied apply_open_session(Context& context, proto::Open_session const& command) {
  if (command.name().size() > session_name_bytes_max) {
    return failure(Errc::too_large, "the name of a session has at most " +
                                        std::to_string(session_name_bytes_max) + " bytes");
  }
  if (context.database.number("SELECT 1 FROM session WHERE id = ?", 0, context.session) != 0) {
    return success();
  }
  if (context.database.number("SELECT count(*) FROM session", 0) >= sessions_max) {
    return failure(Errc::too_large, "too many clients are connected to this cluster");
  }
  context.database.run(
      "INSERT INTO session(id, name, host, role, opened_ms, acked_below)"
      " VALUES(?, ?, ?, ?, ?, 0)",
      context.session, command.name(), command.host_id(), static_cast<int>(context.role),
      context.wall_ms);
  context.effects.sessions.insert(context.session);
  return success();
}

Applied apply_close_session(Context& context) {
  for (auto const& lease : leases_of(context.database, context.session)) {
    end_lease(context, lease, false);  // nobody has said that it was flushed
  }
  forget_session(context, context.session);
  return success();
}

Applied apply_expire_sessions(Context& context, proto::Expire_sessions const& command) {
  for (auto const id : command.sessions()) {
    Session_id const session{id};
    auto const leases = leases_of(context.database, session);
    if (!leases.empty()) {
      add_event(
          context, "MDS", "WRN",
          "Client " + describe_session(context.database, session) + " has not been heard of: its " +
              std::to_string(leases.size()) +
              (leases.size() == 1 ? " lease may be taken over" : " leases may be taken over"));
    }
    for (auto const& lease : leases) {
      end_lease(context, lease, false);
      context.effects.lost_leases.push_back({session, lease.file, lease.epoch, {}});
    }
    forget_session(context, session);
  }
  return success();
}

}  // namespace pstorage::mds
