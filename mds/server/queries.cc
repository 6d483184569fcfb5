// Queries: answered from the committed state once the log says that it is fresh; heartbeats: from
// memory alone.
#include <algorithm>

#include "mds/server/event_rows.h"
#include "mds/server/metadata_server.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

using proto::Mds_request;

constexpr std::uint32_t events_default = 1000;
constexpr std::uint32_t events_reply_max = 10'000;
constexpr std::size_t listing_max = 200'000;

Applied look_up(Database& database, std::string const& path, proto::Mds_reply& reply) {
  PS_TRY(auto const place, find_place(database, path));
  if (!place.inode) return failure(Errc::not_found, "no file or directory '" + path + "'");
  fill_file(database, *place.inode, place.name, *reply.mutable_file());
  if (auto const lease = load_lease(database, place.inode->id)) {
    reply.mutable_file()->set_holder(describe_session(database, lease->user()));
  }
  return success();
}

Applied list_directory(Database& database, proto::Path_request const& query,
                       proto::Mds_reply& reply) {
  auto const& path = query.path();
  PS_TRY(auto const directory, resolve(database, path));
  if (!directory.is_directory()) {
    return failure(Errc::not_directory, "'" + path + "' is not a directory");
  }
  auto& files = *reply.mutable_files();
  Rows rows(database,
            "SELECT name, inode FROM dirent WHERE parent = ? AND name > ? ORDER BY name LIMIT ?");
  auto const limit =
      query.limit() == 0 ? listing_max : std::min<std::size_t>(query.limit(), listing_max);
  rows.bind(1, directory.id);
  rows.bind(2, query.after());
  rows.bind(3, limit + 1);
  while (rows.next()) {
    if (static_cast<std::size_t>(files.files_size()) == limit) {
      if (query.limit() != 0) {
        files.set_more(true);
        return success();
      }
      return failure(Errc::too_large,
                     "the directory has more than " + std::to_string(listing_max) + " entries");
    }
    auto const inode = load_inode(database, File_id{rows.u64(1)});
    if (inode) fill_file(database, *inode, rows.text(0), *files.add_files());
  }
  return success();
}

Applied get_map(Database& database, proto::Get_map const& query, proto::Mds_reply& reply) {
  File_id const file{query.file()};
  if (!load_inode(database, file)) {
    return failure(Errc::not_found, "no file with id " + std::to_string(query.file()));
  }
  auto& map = *reply.mutable_map();
  if (query.indexes().empty()) {
    fill_map(database, file, map);
    return success();
  }
  map.set_file(file.value);
  for (auto const index : query.indexes()) {
    if (auto const chunk = find_chunk(database, file, index)) add_to_map(*chunk, map);
  }
  add_servers(database, map);
  return success();
}

void get_events(Database& database, proto::Get_events const& query, proto::Events& events) {
  auto const limit =
      query.limit() == 0 ? events_default : std::min(query.limit(), events_reply_max);
  Rows rows(database,
            "SELECT number, time_ms, source, severity, text FROM event WHERE number > ?"
            " ORDER BY number LIMIT ?");
  auto after = query.after();
  if (query.newest() != 0) {  // numbers have no gaps
    auto const last = database.number("SELECT max(number) FROM event", 0);
    after = last - std::min<std::uint64_t>({last, query.newest(), limit});
  }
  rows.bind(1, after);
  rows.bind(2, limit);
  add_events(rows, events);
}

}  // namespace

void Metadata_server::answer_queries() {
  auto queries = std::move(queries_);
  queries_.clear();
  entries_.read_barrier([this, queries = std::move(queries)](Result<std::uint64_t> fresh) mutable {
    for (auto& query : queries) {
      if (!leads()) {
        refuse_as_follower(query.connection, query.request_id);
      } else if (!fresh.has_value()) {
        refuse(query.connection, query.request_id,
               failure(fresh.error(), "this MDS cannot answer now: " + fresh.error().message()));
      } else {
        query.index = fresh.value();
        fresh_queries_.push_back(std::move(query));
      }
    }
    answer_fresh_queries();
  });
}

void Metadata_server::answer_fresh_queries() {
  if (!state_) return;  // it is being replaced
  auto const applied = state_->applied();
  while (!fresh_queries_.empty() &&
         (stalled_ || !leads() || fresh_queries_.front().index <= applied)) {
    auto query = std::move(fresh_queries_.front());
    fresh_queries_.pop_front();
    if (!leads()) {
      refuse_as_follower(query.connection, query.request_id);
    } else if (query.index > applied) {
      refuse(query.connection, query.request_id,
             failure(Errc::unavailable, "this MDS cannot answer now: its disk is full"));
    } else {
      proto::Mds_reply answered;
      answer_query(query, answered);
      reply(query.connection, query.request_id, answered);
    }
  }
}

void Metadata_server::answer_query(Query& query, proto::Mds_reply& reply) {
  auto& database = state_->database();
  auto const& request = query.request;
  Applied done = success();
  switch (request.op_case()) {
    case Mds_request::kHeartbeat:
      // Only a master that still is one may say that a lease goes on.
      heartbeat(Session_id{request.session()}, *query.request.mutable_heartbeat(), reply);
      break;
    case Mds_request::kLookup:
      done = look_up(database, request.lookup().path(), reply);
      break;
    case Mds_request::kListDirectory:
      done = list_directory(database, request.list_directory(), reply);
      break;
    case Mds_request::kGetMap:
      done = get_map(database, request.get_map(), reply);
      break;
    case Mds_request::kGetStatus:
      fill_status(*reply.mutable_cluster_status());
      break;
    case Mds_request::kListServices:
      fill_services(*reply.mutable_services());
      break;
    case Mds_request::kGetEvents:
      get_events(database, request.get_events(), *reply.mutable_events());
      break;
    case Mds_request::kGetConfig:
      for (auto const& setting : known_settings()) {
        (*reply.mutable_config()->mutable_values())[setting.name] =
            setting_text(database, setting.name);
      }
      break;
    case Mds_request::kExplain:
      done = explain(request.explain(), *reply.mutable_explanation());
      break;
    case Mds_request::kInventory:
      done = take_inventory(query.connection, request.inventory());
      break;
    case Mds_request::kReportDamage:
      done = note_damage(query.connection, request.report_damage(), reply);
      break;
    case Mds_request::kOkToStop:
      done = ok_to_stop(request.ok_to_stop(), *reply.mutable_stop_advice());
      break;
    default:
      done = failure(Errc::bad_request, "the request asks for nothing this MDS knows");
  }
  if (database.failed()) done = database.take_error();
  if (done.has_value()) return;
  reply.Clear();
  reply.set_status(static_cast<std::uint32_t>(errc_of(done.error().code)));
  reply.set_text(done.error().text);
}

void Metadata_server::heartbeat(Session_id session, proto::Heartbeat& heartbeat,
                                proto::Mds_reply& reply) {
  auto const found = tables_.sessions.find(session);
  if (found == tables_.sessions.end() || found->second.is_expiring) {
    reply.set_status(static_cast<std::uint32_t>(Errc::session_expired));
    reply.set_text(message_of(Errc::session_expired));
    return;
  }
  auto& answer = *reply.mutable_heartbeat();
  for (auto const file : heartbeat.files()) {
    auto const lease = tables_.leases.find(File_id{file});
    if (lease == tables_.leases.end() || lease->second.session != session) {
      answer.add_lost_files(file);
    }
  }
  for (auto const file : heartbeat.shared_files()) {
    if (!is_reader(state_->database(), File_id{file}, session)) {
      answer.add_lost_shared_files(file);
    }
  }
  if (found->second.told_mds != tables_.mds_generation) {
    found->second.told_mds = tables_.mds_generation;
    for (auto const& server : tables_.mds_clients) answer.add_servers(server);
  }
  heartbeat.clear_files();
  heartbeat.clear_shared_files();
  auto& memory = found->second;
  memory.counters.Swap(&heartbeat);
  auto const& counters = memory.counters;
  memory.rates.heard({counters.read_ops(), counters.read_bytes(), counters.write_ops(),
                      counters.write_bytes(), counters.flushes()},
                     clock_.now());
}

Outcome<void> Metadata_server::cs_heartbeat(Connection_id connection, Peer const& peer,
                                            proto::Cs_heartbeat& heartbeat) {
  auto const found = tables_.servers.find(Cs_id{heartbeat.cs()});
  if (found == tables_.servers.end() || peer.cs.value != heartbeat.cs() ||
      found->second.connection != connection ||
      found->second.incarnation != heartbeat.incarnation()) {
    return failure(Errc::refused, "this chunk server has not registered: register first");
  }
  auto& memory = found->second;
  memory.last_heartbeat = clock_.now();
  memory.stats.Swap(&heartbeat);
  auto const& stats = memory.stats;
  memory.rates.heard({stats.read_ops(), stats.read_bytes(), stats.write_ops(), stats.write_bytes(),
                      stats.syncs(), stats.pulled_bytes()},
                     clock_.now());
  if (stats.wall_ms() != 0) {
    memory.clock_offset_ms = static_cast<std::int64_t>(stats.wall_ms() - clock_.wall_ms());
  }
  tables_.slow.heard(found->first, std::chrono::microseconds(stats.io_latency_us()),
                     std::chrono::milliseconds(stats.stalled_ms()), clock_.now());
  if (stats.read_only()) {
    if (memory.state != "failed") {
      set_cs_state(found->first, memory, "failed", stats.read_only_reason().substr(0, 200));
    }
  } else if (memory.state == "inactive" || memory.state == "offline") {
    set_cs_state(found->first, memory, "active", {});
  }
  return success();
}

}  // namespace pstorage::mds
