#include "mds/state/state_machine.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "core/assert.h"
#include "entry.pb.h"
#include "mds/state/chunks.h"
#include "mds/state/commands.h"
#include "mds/state/schema.h"

namespace pstorage::mds {
namespace {

using proto::Mds_request;

/// The same bytes on every member, whatever the order of hash maps.
std::string deterministic_bytes(proto::Mds_reply const& reply) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  reply.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

void refuse(proto::Mds_reply& reply, Failure const& why) {
  reply.Clear();
  reply.set_status(static_cast<std::uint32_t>(errc_of(why.code)));
  reply.set_text(why.text);
}

/// Commands about servers, most of which only the leader itself proposes.
Applied dispatch_own(Context& context, Mds_request const& request) {
  switch (request.op_case()) {
    case Mds_request::kSetCsState:
      return apply_set_cs_state(context, request.set_cs_state());
    case Mds_request::kExpireSessions:
      return apply_expire_sessions(context, request.expire_sessions());
    case Mds_request::kStartSync:
      return apply_start_sync(context, request.start_sync());
    case Mds_request::kDropOffline:
      return apply_drop_offline(context, request.drop_offline());
    case Mds_request::kReleaseCs:
      return apply_release_cs(context, request.release_cs());
    case Mds_request::kRemoveReplicas:
      return apply_remove_replicas(context, request.remove_replicas());
    case Mds_request::kDropCs:
      return apply_drop_cs(context, request.drop_cs());
    case Mds_request::kAddGarbage:
      return apply_add_garbage(context, request.add_garbage());
    case Mds_request::kAddEvent:
      return apply_add_event(context, request.add_event());
    case Mds_request::kBootstrap:
      return apply_bootstrap(context, request.bootstrap());
    default:
      return failure(Errc::bad_request, "the request is not a command");
  }
}

Applied dispatch(Context& context, Mds_request const& request, proto::Mds_reply& reply) {
  if (request.has_guard()) {
    PS_CHECK(held_lease(context, request.guard().file(), request.guard().epoch()));
  }
  switch (request.op_case()) {
    case Mds_request::kCloseSession:
      return apply_close_session(context);
    case Mds_request::kCreate:
      return apply_create(context, request.create(), reply);
    case Mds_request::kRemove:
      return apply_remove(context, request.remove(), reply);
    case Mds_request::kRename:
      return apply_rename(context, request.rename(), reply);
    case Mds_request::kLink:
      return apply_link(context, request.link(), reply);
    case Mds_request::kSetAttributes:
      return apply_set_attributes(context, request.set_attributes(), reply);
    case Mds_request::kSetInode:
      return apply_set_inode(context, request.set_inode(), reply);
    case Mds_request::kResize:
      return apply_resize(context, request.resize(), reply);
    case Mds_request::kOpenFile:
      return apply_open_file(context, request.open_file(), reply);
    case Mds_request::kFinishSeal:
      return apply_finish_seal(context, request.finish_seal(), reply);
    case Mds_request::kCloseFile:
      return apply_close_file(context, request.close_file());
    case Mds_request::kAllocate:
      return apply_allocate(context, request.allocate(), reply);
    case Mds_request::kReportFailed:
      return apply_report_failed(context, request.report_failed(), reply);
    case Mds_request::kRevoke:
      return apply_revoke(context, request.revoke());
    case Mds_request::kFreeChunks:
      return apply_free_chunks(context, request.free_chunks());
    case Mds_request::kCreateCs:
      return apply_create_cs(context, request.create_cs(), reply);
    case Mds_request::kRegisterCs:
      return apply_register_cs(context, request.register_cs(), reply);
    case Mds_request::kSyncDone:
      return apply_sync_done(context, request.sync_done());
    case Mds_request::kDeletedChunks:
      return apply_deleted_chunks(context, request.deleted_chunks());
    case Mds_request::kCreateMds:
      return apply_create_mds(context, request.create_mds(), reply);
    case Mds_request::kRemoveMds:
      return apply_remove_mds(context, request.remove_mds());
    case Mds_request::kSetConfig:
      return apply_set_config(context, request.set_config());
    default:
      return dispatch_own(context, request);
  }
}

}  // namespace

void Effects::merge(Effects&& other) {
  map_changes.merge(other.map_changes);
  sync_orders.merge(other.sync_orders);
  leases.merge(other.leases);
  lost_leases.insert(lost_leases.end(), other.lost_leases.begin(), other.lost_leases.end());
  servers.merge(other.servers);
  sessions.merge(other.sessions);
  garbage.merge(other.garbage);
  failed_syncs.merge(other.failed_syncs);
  members_changed = members_changed || other.members_changed;
  minimums.merge(other.minimums);
  slow.merge(other.slow);
  syncs_done += other.syncs_done;
  replicas_changed = replicas_changed || other.replicas_changed;
  config_changed = config_changed || other.config_changed;
}

Outcome<std::unique_ptr<State_machine>> State_machine::open(std::string const& path) {
  PS_TRY(auto database, Database::open(path));
  PS_CHECK(prepare_schema(*database));
  std::unique_ptr<State_machine> machine(new State_machine(std::move(database)));
  machine->applied_ =
      machine->database_->number("SELECT number FROM meta WHERE name = 'applied'", 0);
  if (machine->database_->failed()) return machine->database_->take_error();
  return machine;
}

Outcome<std::vector<Applied_entry>> State_machine::apply(std::span<Committed_entry const> entries,
                                                         Effects& effects, std::uint64_t rows_max) {
  PS_ASSERT(!entries.empty() && entries.front().index == applied_ + 1);
  std::vector<Applied_entry> results;
  Effects batch;
  database_->run("BEGIN IMMEDIATE");
  auto const begin = database_->total_changes();
  for (auto const& entry : entries) {
    results.push_back({.index = entry.index, .reply = {}});
    apply_entry(entry, batch, results.back());
    if (database_->failed() || database_->total_changes() - begin >= rows_max) break;
  }
  auto const last = results.back().index;
  database_->run(
      "INSERT INTO meta(name, number) VALUES('applied', ?)"
      " ON CONFLICT(name) DO UPDATE SET number = excluded.number",
      last);
  database_->run("COMMIT");
  if (database_->failed()) return database_->take_error();
  applied_ = last;
  effects.merge(std::move(batch));
  return results;
}

void State_machine::apply_entry(Committed_entry const& committed, Effects& effects,
                                Applied_entry& applied) {
  if (committed.bytes.empty()) return;  // of the log itself
  Entry entry;
  if (!entry.ParseFromString(committed.bytes)) {
    // Every member sees the same bytes, so every member refuses it alike.
    refuse(applied.reply, failure(Errc::bad_request, "malformed log entry"));
    return;
  }
  std::vector<Space_report> space;
  for (auto const& report : entry.space()) {
    space.push_back({Cs_id{report.cs()}, report.total_bytes(), report.free_bytes(), report.slow()});
  }
  auto const& request = entry.request();
  Entry_random random(entry.random());
  Effects own;
  Context context{*database_,
                  entry.wall_ms(),
                  random,
                  static_cast<Role>(entry.role()),
                  Session_id{request.session()},
                  space,
                  own};
  apply_command(context, request, applied);
  effects.merge(std::move(own));
}

void State_machine::apply_command(Context& context, Mds_request const& request,
                                  Applied_entry& entry) {
  auto& database = *database_;
  auto& reply = entry.reply;
  auto const session = context.session;
  if (request.op_case() == Mds_request::kOpenSession) {
    auto const opened = apply_open_session(context, request.open_session());
    if (!opened.has_value()) refuse(reply, opened.error());
    return;
  }
  bool const is_own = !session && request.sequence() == 0;  // the leader's own proposals
  if (!is_own) {
    Rows rows(database, "SELECT acked_below FROM session WHERE id = ?");
    rows.bind(1, session);
    if (!rows.next()) {
      refuse(reply, failure(Errc::session_expired, message_of(Errc::session_expired)));
      return;
    }
    auto const acked_below = rows.u64(0);
    Rows stored(database, "SELECT reply FROM reply WHERE session = ? AND sequence = ?");
    stored.bind(1, session);
    stored.bind(2, request.sequence());
    if (stored.next()) {
      entry.is_repeated = true;
      if (!reply.ParseFromString(stored.text(0))) {
        refuse(reply, failure(Errc::corrupt, "a stored reply cannot be read"));
      }
      return;
    }
    if (request.sequence() < acked_below) {
      refuse(reply, failure(Errc::refused, "the command was answered before"));
      return;
    }
    if (request.acked_below() > acked_below) {
      database.run("UPDATE session SET acked_below = ? WHERE id = ?", request.acked_below(),
                   session);
      database.run("DELETE FROM reply WHERE session = ? AND sequence < ?", session,
                   request.acked_below());
    }
  }
  database.run("SAVEPOINT command");
  auto const applied = dispatch(context, request, reply);
  if (!applied.has_value()) {
    database.run("ROLLBACK TO command");
    context.effects = {};
    refuse(reply, applied.error());
  }
  database.run("RELEASE command");
  if (!is_own && request.op_case() != Mds_request::kCloseSession) {
    database.run("INSERT INTO reply(session, sequence, reply) VALUES(?, ?, ?)", session,
                 request.sequence(), Blob{deterministic_bytes(reply)});
  }
}

}  // namespace pstorage::mds
