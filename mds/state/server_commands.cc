#include <algorithm>
#include <charconv>

#include "core/nearest.h"
#include "mds/state/chunks.h"
#include "mds/state/commands.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

constexpr std::uint32_t first_cs_id = 1025;
constexpr std::size_t text_bytes_max = 255;
constexpr int addresses_max = 16;

std::string cs_text(std::uint32_t cs) { return "CS#" + std::to_string(cs); }

Applied check_host(std::uint64_t host, std::string const& name, std::string const& location) {
  if (host == 0) return failure(Errc::bad_request, "the host has no host id");
  if (name.size() > text_bytes_max || location.size() > text_bytes_max) {
    return failure(Errc::too_large, "the host's name or location is too long");
  }
  return success();
}

void store_host(Context& context, std::uint64_t host, std::string const& name,
                std::string const& location) {
  context.database.run("INSERT OR REPLACE INTO host(id, name, location) VALUES(?, ?, ?)", host,
                       name, location);
}

/// A CS process that has ended has forgotten which writes it was being sent.
void stop_syncs(Context& context, Cs_id cs) {
  std::vector<Chunk_id> syncing;
  {
    Rows rows(context.database,
              "SELECT chunk FROM replica WHERE cs = ? AND state = ? ORDER BY chunk");
    rows.bind(1, cs);
    rows.bind(2, static_cast<int>(proto::REPLICA_SYNCING));
    while (rows.next()) syncing.push_back(Chunk_id{rows.u64(0)});
  }
  for (auto const id : syncing) {
    auto chunk = load_chunk(context.database, id);
    auto const inode = chunk ? load_inode(context.database, chunk->file) : std::nullopt;
    if (!inode) continue;
    auto replicas = chunk->replicas;
    for (auto& replica : replicas) {
      if (replica.cs == cs) replica.state = proto::REPLICA_STALE;
    }
    change_replicas(context, *chunk, std::move(replicas), inode->attributes);
  }
}

Applied check_addresses(proto::Register_cs const& command) {
  if (command.addresses_size() == 0 || command.addresses_size() > addresses_max) {
    return failure(Errc::bad_request, "a chunk server has 1 to 16 addresses");
  }
  for (auto const& address : command.addresses()) {
    if (address.empty() || address.size() > text_bytes_max ||
        address.find('\n') != std::string::npos) {
      return failure(Errc::bad_request, "an address of the chunk server is malformed");
    }
  }
  if (command.repository_uuid().empty() || command.repository_uuid().size() > text_bytes_max ||
      command.flags().size() > text_bytes_max) {
    return failure(Errc::bad_request, "the repository's uuid is missing or malformed");
  }
  return success();
}

std::string nearest_setting(std::string const& name) {
  std::vector<std::string> names;
  for (auto const& setting : known_settings()) names.emplace_back(setting.name);
  return nearest(name, names);
}

}  // namespace

Applied apply_create_cs(Context& context, proto::Create_cs const& command,
                        proto::Mds_reply& reply) {
  PS_CHECK(check_host(command.host_id(), command.host_name(), command.location()));
  if (command.tier() > tier_max) {
    return failure(Errc::bad_request, "tier: 0 to " + std::to_string(tier_max));
  }
  auto const number = next_counter(context.database, "cs");
  auto const id = static_cast<std::uint32_t>(number) + first_cs_id - 1;
  store_host(context, command.host_id(), command.host_name(), command.location());
  context.database.run(
      "INSERT INTO cs(id, repository, host, tier, state, incarnation, addresses, total, free,"
      " flags) VALUES(?, '', ?, ?, 'new', 0, '', 0, 0, '')",
      id, command.host_id(), command.tier());
  context.effects.servers.insert(Cs_id{id});
  auto& created = *reply.mutable_created_cs();
  created.set_cs(id);
  created.set_cluster_uuid(meta_text(context.database, "cluster_uuid"));
  return success();
}

Applied apply_register_cs(Context& context, proto::Register_cs const& command,
                          proto::Mds_reply& reply) {
  PS_CHECK(check_host(command.host_id(), command.host_name(), command.location()));
  PS_CHECK(check_addresses(command));
  std::string state;
  bool has_moved = false;
  {
    Rows rows(context.database,
              "SELECT repository, state, incarnation, host, location FROM cs"
              " LEFT JOIN host ON host.id = cs.host WHERE cs.id = ?");
    rows.bind(1, command.cs());
    if (!rows.next()) {
      return failure(Errc::not_found, cs_text(command.cs()) +
                                          " is not known to this cluster: "
                                          "make a new repository with 'pstorage make-cs'");
    }
    auto const repository = rows.text(0);
    if (!repository.empty() && repository != command.repository_uuid()) {
      return failure(Errc::refused, "this is not the repository of " + cs_text(command.cs()) +
                                        ": its uuid differs; a copied or foreign repository is "
                                        "never used");
    }
    state = rows.text(1);
    if (state == "dropped") {
      return failure(Errc::dropped, cs_text(command.cs()) +
                                        " has been removed from the cluster (rm-cs): its id is "
                                        "never used again; to give this disk back, empty the "
                                        "repository and run 'pstorage make-cs'");
    }
    has_moved = rows.u64(3) != command.host_id() || rows.text(4) != command.location();
    if (rows.u32(2) != command.incarnation()) stop_syncs(context, Cs_id{command.cs()});
  }
  std::string addresses;
  for (auto const& address : command.addresses()) addresses += address + "\n";
  store_host(context, command.host_id(), command.host_name(), command.location());
  std::string const next_state = "active";
  context.database.run(
      "UPDATE cs SET repository = ?, host = ?, state = ?, incarnation = ?, addresses = ?,"
      " total = ?, free = ?, flags = ? WHERE id = ?",
      command.repository_uuid(), command.host_id(), next_state, command.incarnation(), addresses,
      command.total_bytes(), command.free_bytes(), command.flags(), command.cs());
  context.effects.servers.insert(Cs_id{command.cs()});
  context.effects.replicas_changed = true;
  if (has_moved) refresh_states_on(context, Cs_id{command.cs()});
  if (state != next_state) {
    add_event(context, "MDS", "INF",
              cs_text(command.cs()) + " on " + command.host_name() + " is " + next_state);
  }
  note_health(context);
  reply.mutable_registered_cs()->set_encryption(
      setting_number(context.database, "net.encryption") != 0);
  reply.mutable_registered_cs()->set_scrub_period_s(
      setting_number(context.database, "cs.scrub-period"));
  reply.mutable_registered_cs()->set_log_level(
      static_cast<std::uint32_t>(setting_number(context.database, "cs.log.level")));
  return success();
}

Applied apply_set_cs_state(Context& context, proto::Set_cs_state const& command) {
  static constexpr std::array known = {"active", "inactive", "offline", "failed"};
  if (std::find(known.begin(), known.end(), command.state()) == known.end()) {
    return failure(Errc::bad_request, "unknown state '" + command.state() + "'");
  }
  std::string host;
  {
    Rows rows(context.database,
              "SELECT state, host.name FROM cs LEFT JOIN host ON host.id = cs.host"
              " WHERE cs.id = ?");
    rows.bind(1, command.cs());
    if (!rows.next()) return failure(Errc::not_found, cs_text(command.cs()) + " is not known");
    auto const state = rows.text(0);
    if (state == command.state() || state == "dropped" || state == "new") return success();
    host = rows.text(1);
  }
  context.database.run("UPDATE cs SET state = ? WHERE id = ?", command.state(), command.cs());
  context.effects.servers.insert(Cs_id{command.cs()});
  context.effects.replicas_changed = true;
  add_event(context, "MDS", command.state() == "active" ? "INF" : "WRN",
            cs_text(command.cs()) + " on " + host + " is " + command.state() +
                (command.reason().empty() ? "" : ": " + command.reason()));
  note_health(context);
  return success();
}

Applied apply_set_config(Context& context, proto::Set_config const& command) {
  for (auto const& setting : known_settings()) {
    if (command.name() != setting.name) continue;
    auto const& text = command.value();
    std::uint64_t value = 0;
    auto const parsed = std::from_chars(text.data(), text.data() + text.size(), value);
    if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() ||
        value < setting.lowest || value > setting.highest) {
      return failure(Errc::bad_request,
                     command.name() + ": a number from " + std::to_string(setting.lowest) + " to " +
                         std::to_string(setting.highest) + ", not '" + text + "'");
    }
    context.database.run("INSERT OR REPLACE INTO config(name, value) VALUES(?, ?)", command.name(),
                         std::to_string(value));
    context.effects.config_changed = true;
    add_event(context, "MDS", "INF", command.name() + " set to " + std::to_string(value));
    return success();
  }
  return failure(Errc::not_found, "unknown setting '" + command.name().substr(0, 100) +
                                      "': did you mean '" +
                                      nearest_setting(command.name().substr(0, 100)) + "'?");
}

Applied apply_add_event(Context& context, proto::Add_event const& command) {
  add_event(context, command.source().c_str(), command.severity().c_str(), command.text());
  return success();
}

Applied apply_bootstrap(Context& context, proto::Bootstrap const& command) {
  if (load_inode(context.database, root_inode)) {
    return failure(Errc::exists, "the cluster has been made already");
  }
  set_meta_text(context.database, "cluster", command.cluster());
  set_meta_text(context.database, "cluster_uuid", command.cluster_uuid());
  Inode root;
  root.id = File_id{next_counter(context.database, "inode")};
  root.type = proto::TYPE_DIRECTORY;
  root.modified_ms = context.wall_ms;
  store_inode(context.database, root);
  add_event(context, "MDS", "INF", "Cluster '" + command.cluster() + "' was created");
  return success();
}

}  // namespace pstorage::mds
