// The metadata servers that shall take part; the leader brings the log's members in line with it.
#include "mds/state/commands.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

constexpr std::size_t text_bytes_max = 255;

std::string mds_text(std::uint64_t id, std::string const& address) {
  return "MDS#" + std::to_string(id) + " (" + address + ")";
}

void fill_reply(Context& context, std::uint64_t id, proto::Mds_reply& reply) {
  reply.mutable_created_mds()->set_mds(static_cast<std::uint32_t>(id));
  reply.mutable_created_mds()->set_cluster_uuid(meta_text(context.database, "cluster_uuid"));
}

}  // namespace

Applied apply_create_mds(Context& context, proto::Create_mds const& command,
                         proto::Mds_reply& reply) {
  if (command.member() == 0 || command.address().empty() ||
      command.address().size() > text_bytes_max || command.host_name().size() > text_bytes_max) {
    return failure(Errc::bad_request, "a metadata server has a member id and an address");
  }
  auto& database = context.database;
  if (auto const known =
          database.number("SELECT id FROM mds WHERE member = ?", 0, command.member())) {
    fill_reply(context, known, reply);
    return success();
  }
  if (auto const other =
          database.number("SELECT id FROM mds WHERE address = ?", 0, command.address())) {
    return failure(Errc::exists, mds_text(other, command.address()) +
                                     " has this address already: remove it first with 'rm-mds " +
                                     std::to_string(other) + "', or choose another one");
  }
  auto const id = next_counter(database, "mds");
  database.run("INSERT INTO mds(id, member, address, host, host_name) VALUES(?, ?, ?, ?, ?)", id,
               command.member(), command.address(), command.host_id(), command.host_name());
  context.effects.members_changed = true;
  add_event(context, "MDS", "INF", mds_text(id, command.address()) + " was added");
  fill_reply(context, id, reply);
  return success();
}

Applied apply_remove_mds(Context& context, proto::Remove_mds const& command) {
  auto& database = context.database;
  std::string address;
  {
    Rows rows(database, "SELECT address FROM mds WHERE id = ?");
    rows.bind(1, command.mds());
    if (!rows.next()) {
      return failure(Errc::not_found, "there is no MDS#" + std::to_string(command.mds()));
    }
    address = rows.text(0);
  }
  if (database.number("SELECT count(*) FROM mds", 0) == 1) {
    return failure(Errc::refused, mds_text(command.mds(), address) +
                                      " is the only metadata server: the cluster would end");
  }
  database.run("DELETE FROM mds WHERE id = ?", command.mds());
  context.effects.members_changed = true;
  add_event(context, "MDS", "INF", mds_text(command.mds(), address) + " was removed");
  return success();
}

}  // namespace pstorage::mds
