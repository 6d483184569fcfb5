// Commands on their way: admission, the log, applying, answers.
#include <algorithm>
#include <utility>

#include "entry.pb.h"
#include "mds/server/metadata_server.h"
#include "mds/state/chunks.h"

namespace pstorage::mds {
namespace {

using proto::Mds_request;

// A holder that lives says something every second.
constexpr Duration silent_after = std::chrono::milliseconds(2500);

/// May the command make the metadata larger? Those are refused before the disk is full; the others
/// (giving back, failing over, deleting) must always get through.
bool grows(Mds_request const& request) {
  switch (request.op_case()) {
    case Mds_request::kCreate:
    case Mds_request::kLink:
    case Mds_request::kRename:
    case Mds_request::kSetAttributes:
    case Mds_request::kSetInode:
    case Mds_request::kAllocate:
    case Mds_request::kCreateCs:
      return true;
    default:
      return false;
  }
}

/// Does it have to know how full the chunk servers are?
bool places_replicas(Mds_request const& request) {
  return request.op_case() == Mds_request::kAllocate ||
         request.op_case() == Mds_request::kReleaseCs;
}

}  // namespace

Outcome<void> Metadata_server::admit(Mds_request const& request) {
  if (waiting_.size() >= options_.commands_max || waiting_bytes_ >= options_.command_bytes_max) {
    return failure(Errc::unavailable, "the MDS is busy with " + std::to_string(waiting_.size()) +
                                          " commands: try again");
  }
  if (stalled_ || (low_space_ && grows(request))) {
    if (yield_leadership()) {
      return failure(Errc::unavailable,
                     "the disk of this metadata server is full: another one is "
                     "asked to lead");
    }
    return failure(Errc::no_space,
                   "the disk of the metadata server is full: free space there, "
                   "then try again");
  }
  if (request.session() == 0) {
    return failure(Errc::bad_request, "a command needs a session");
  }
  if (request.op_case() != Mds_request::kOpenSession && request.sequence() == 0) {
    return failure(Errc::bad_request, "a command needs a sequence number");
  }
  return success();
}

void Metadata_server::command(Connection_id connection, Peer const& peer, std::uint64_t request_id,
                              Mds_request request) {
  if (auto const admitted = admit(request); !admitted.has_value()) {
    refuse(connection, request_id, admitted.error());
    return;
  }
  Waiting waiting;
  waiting.connection = connection;
  waiting.request_id = request_id;
  waiting.op = request.op_case();
  waiting.session = Session_id{request.session()};
  if (request.has_register_cs()) {
    waiting.cs = Cs_id{request.register_cs().cs()};
    waiting.incarnation = request.register_cs().incarnation();
    auto const known = tables_.servers.find(waiting.cs);
    if (known != tables_.servers.end() && known->second.connection &&
        known->second.connection != connection &&
        known->second.incarnation != waiting.incarnation &&
        clock_.now() - known->second.last_heartbeat < options_.cs_timeout) {
      // Not final: the other may be a process that is gone and whose connection has not noticed.
      refuse(connection, request_id,
             failure(Errc::unavailable, "CS#" + std::to_string(waiting.cs.value) +
                                            " is already running: a repository is served by one "
                                            "csd, copies of it by none"));
      return;
    }
  }
  if (request.has_sync_done() || request.has_deleted_chunks()) {
    auto const cs =
        request.has_sync_done() ? request.sync_done().cs() : request.deleted_chunks().cs();
    if (!peer.cs || peer.cs.value != cs) {
      refuse(connection, request_id,
             failure(Errc::refused, "this chunk server has not registered: register first"));
      return;
    }
  }
  if (auto const asked = ask_for_leases(request); !asked.has_value()) {
    refuse(connection, request_id, asked.error());
    return;
  }
  if (request.has_remove_mds()) {
    if (auto const allowed = may_remove(request.remove_mds().mds()); !allowed.has_value()) {
      refuse(connection, request_id, allowed.error());
      return;
    }
  }
  auto const proposed = propose(peer.info.role, std::move(request), waiting.bytes);
  if (!proposed.has_value()) {
    refuse(connection, request_id, proposed.error());
    return;
  }
  waiting_bytes_ += waiting.bytes;
  waiting_.emplace(proposed.value(), waiting);
}

/// Tells the holders of what the command needs for itself, so that idle ones give it back: the
/// asker, refused as busy now, asks again. Errors: unavailable, with wait_dead, while a holder is
/// silent.
Outcome<void> Metadata_server::ask_for_leases(Mds_request const& request) {
  std::string const* path = nullptr;
  if (request.has_open_file() && !request.open_file().force()) path = &request.open_file().path();
  if (request.has_remove()) path = &request.remove().path();
  if (request.has_rename()) path = &request.rename().to();
  if (request.has_resize()) path = &request.resize().path();
  if (path == nullptr || !state_) return success();
  auto& database = state_->database();
  auto const place = find_place(database, *path);
  if (!place.has_value() || !place.value().inode) return success();
  auto const file = place.value().inode->id;
  proto::Lease_wanted wanted;
  wanted.set_file(file.value);
  wanted.set_exclusive(!(request.has_open_file() && request.open_file().shared()));
  Session_id const asker{request.session()};
  wanted.set_by(describe_session(database, asker));
  std::vector<Session_id> holders;
  if (wanted.exclusive()) holders = readers_of(database, file);
  if (auto const lease = load_lease(database, file); lease && lease->user()) {
    holders.push_back(lease->user());
  }
  for (auto const holder : holders) {
    if (holder == asker) continue;
    push_lease_wanted(holder, wanted);
    auto const memory = tables_.sessions.find(holder);
    bool const is_silent = memory != tables_.sessions.end() &&
                           (!peers_.contains(memory->second.connection) ||
                            clock_.now() - memory->second.last_heard > silent_after);
    if (is_silent && request.open_file().wait_dead()) {
      return failure(Errc::unavailable, describe_session(database, holder) +
                                            ", which has the file open, is not heard of");
    }
  }
  return success();
}

Outcome<std::uint64_t> Metadata_server::propose(Role role, Mds_request request,
                                                std::size_t& bytes) {
  Entry entry;
  entry.set_wall_ms(clock_.wall_ms());
  entry.set_random(random_.next());
  entry.set_role(static_cast<std::uint32_t>(role));
  if (places_replicas(request)) {
    for (auto const& report : tables_.space()) {
      auto& space = *entry.add_space();
      space.set_cs(report.cs.value);
      space.set_total_bytes(report.total_bytes);
      space.set_free_bytes(report.free_bytes);
      space.set_slow(report.slow);
    }
  }
  *entry.mutable_request() = std::move(request);
  auto serialized = entry.SerializeAsString();
  bytes = serialized.size();
  return entries_.propose(std::move(serialized));
}

void Metadata_server::propose_own(Mds_request request) {
  std::size_t bytes = 0;
  auto const proposed = propose(Role::mds, std::move(request), bytes);
  if (proposed.has_value()) return;
  // The watchers propose again what is still so.
  log_.warn("a command of the MDS itself was not accepted", {{"reason", proposed.error().text}});
}

void Metadata_server::on_committed(std::vector<Committed_entry> entries) {
  to_apply_.insert(to_apply_.end(), std::make_move_iterator(entries.begin()),
                   std::make_move_iterator(entries.end()));
  if (!apply_is_due_ && !stalled_ && !holds_entries()) apply_queue();
}

void Metadata_server::on_log_failed(Failure const& why) { fatal(why); }

/// A loop that does not come to its sockets for half a second is taken for dead by the other
/// members, so other events come in between. Not at the start, nor when entries come faster than
/// they can be applied: then whoever sends them has to wait.
void Metadata_server::apply_queue() {
  while (apply_some()) {
    if (!started_ || !options_.next_turn || to_apply_.size() > backlog_max) continue;
    if (!std::exchange(apply_is_due_, true)) {
      options_.next_turn([this] {
        apply_is_due_ = false;
        if (!stalled_ && !holds_entries()) apply_queue();
      });
    }
    break;
  }
  answer_fresh_queries();
  if (takes_over_ && to_apply_.empty()) take_over();
}

/// True: there is more to apply.
bool Metadata_server::apply_some() {
  if (fatal_ || to_apply_.empty()) return false;
  Effects effects;
  auto applied = state_->apply(to_apply_, effects, options_.apply_rows_max);
  if (!applied.has_value()) {
    auto const& why = applied.error();
    if (errc_of(why.code) != Errc::no_space) {
      fatal(failure(why.code, "cannot store metadata: " + why.text));
      return false;
    }
    // Committed but not stored: they wait in memory, and in the log should we end.
    if (!std::exchange(stalled_, true)) {
      log_.error("no space for the metadata database: commands wait until there is",
                 {{"error", why.text}});
    }
    return false;
  }
  if (std::exchange(stalled_, false)) log_.info("the metadata database has room again");
  auto const count = static_cast<std::ptrdiff_t>(applied.value().size());
  to_apply_.erase(to_apply_.begin(), to_apply_.begin() + count);
  if (started_ && leads()) {
    for (auto& entry : applied.value()) answer(entry);
    carry_out(effects);
  }
  return !to_apply_.empty();
}

void Metadata_server::answer(Applied_entry& entry) {
  auto const found = waiting_.find(entry.index);
  if (found == waiting_.end()) return;
  auto const waiting = found->second;
  waiting_.erase(found);
  waiting_bytes_ -= waiting.bytes;
  bool const is_ok = entry.reply.status() == 0;
  if (waiting.op == Mds_request::kOpenSession && is_ok) {
    auto& opened = *entry.reply.mutable_session();
    opened.set_timeout_ms(static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(options_.session_timeout).count()));
    opened.set_epoch_uptime_ms(static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(clock_.now() - lead_since_).count()));
    opened.set_mds(options_.id.value);
    opened.set_cluster_uuid(options_.cluster_uuid);
    for (auto const& server : tables_.mds_clients) opened.add_servers(server);
    auto& memory = tables_.sessions[waiting.session];
    memory.last_heard = clock_.now();
    memory.connection = waiting.connection;
    memory.told_mds = tables_.mds_generation;
  }
  if (waiting.op == Mds_request::kOpenFile && is_ok) {
    auto& lease = *entry.reply.mutable_lease();
    // Changes were told to a client that did not know yet that it has the lease.
    if (entry.is_repeated) {
      lease.mutable_map()->Clear();
      fill_map(state_->database(), File_id{lease.file().id()}, *lease.mutable_map());
    }
    Duration fence{0};
    for (auto const session : lease.previous_sessions()) {
      auto const former = tables_.sessions.find(Session_id{session});
      if (former == tables_.sessions.end()) continue;
      fence = std::max(fence, former->second.last_heard + options_.session_timeout - clock_.now());
    }
    lease.set_fence_ms(
        static_cast<std::uint32_t>(std::chrono::ceil<std::chrono::milliseconds>(fence).count()));
  }
  reply(waiting.connection, waiting.request_id, entry.reply);
  if (waiting.op == Mds_request::kRegisterCs && is_ok) registered(waiting);
}

void Metadata_server::registered(Waiting const& waiting) {
  auto const peer = peers_.find(waiting.connection);
  tables_.refresh_server(state_->database(), waiting.cs, clock_.now());
  auto const server = tables_.servers.find(waiting.cs);
  if (server == tables_.servers.end()) return;
  auto& memory = server->second;
  if (peer == peers_.end()) {
    // Gone before the answer: its disconnection has found nothing to take back.
    if (!memory.connection) set_cs_state(waiting.cs, memory, "inactive", "connection lost");
    return;
  }
  peer->second.cs = waiting.cs;
  tables_.forget_setbacks_of(waiting.cs);
  tables_.slow.restarted(waiting.cs);
  memory.connection = waiting.connection;
  memory.incarnation = waiting.incarnation;
  memory.last_heartbeat = clock_.now();
  memory.is_deleting = false;
  memory.last_pushed = clock_.now();
  push_all_orders(waiting.cs);
  push_garbage(waiting.cs);
}

}  // namespace pstorage::mds
