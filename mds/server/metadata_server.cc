#include "mds/server/metadata_server.h"

#include <utility>

#include "core/assert.h"
#include "core/client/mds_session.h"
#include "mds/state/settings.h"

namespace pstorage::mds {

using proto::Mds_request;

Metadata_server::Metadata_server(Clock& clock, Network& network, Disk& disk, Random& random,
                                 Log& log, Replicated_log& entries, Metadata_server_options options)
    : clock_(clock),
      network_(network),
      disk_(disk),
      random_(random),
      log_(log),
      options_(std::move(options)),
      entries_(entries) {}

Metadata_server::~Metadata_server() { await_checkpoint(); }

Outcome<void> Metadata_server::start() {
  PS_TRY(state_, State_machine::open(options_.database_path));
  start_time_ = last_second_ = leader_heard_ = clock_.now();
  PS_CHECK(entries_.start(state_->applied(), *this));
  if (fatal_) return failure(Errc::io_error, "the metadata log or database cannot be used");
  if (stalled_) return failure(Errc::no_space, "the disk is full: free space, then start again");
  auto const cluster_uuid = meta_text(state_->database(), "cluster_uuid");
  if (!cluster_uuid.empty() && cluster_uuid != options_.cluster_uuid) {
    return failure(Errc::wrong_cluster, "the metadata belongs to another cluster: " + cluster_uuid +
                                            ", not " + options_.cluster_uuid);
  }
  started_ = true;
  if (entries_.is_leader()) take_over();
  entries_.flush();
  return success();
}

void Metadata_server::close_state() {
  await_checkpoint();
  state_.reset();
  // What is committed and not stored yet is in the snapshot.
  to_apply_.clear();
  stalled_ = false;
}

Outcome<void> Metadata_server::open_state() {
  PS_TRY(state_, State_machine::open(options_.database_path));
  return success();
}

bool Metadata_server::hand_over() {
  if (!started_ || fatal_ || !entries_.is_leader() || entries_.members().size() < 2) return false;
  entries_.hand_over();
  return true;
}

Outcome<void> Metadata_server::shut_down() {
  if (fatal_ || !started_) return success();
  started_ = false;
  await_checkpoint();
  if (options_.database_path == ":memory:") return success();
  PS_CHECK(Database::checkpoint(options_.database_path));
  return success();
}

bool Metadata_server::wants_encryption() {
  return setting_number(state_->database(), "net.encryption") != 0;
}

void Metadata_server::on_connected(Connection_id connection, Peer_info const& peer) {
  peers_[connection].info = peer;
  log_.debug("connected", {{"peer", peer.name}, {"address", peer.address}});
}

void Metadata_server::on_disconnected(Connection_id connection, Failure const& why) {
  auto const found = peers_.find(connection);
  if (found == peers_.end()) return;
  log_.debug("disconnected", {{"peer", found->second.info.name}, {"reason", why.text}});
  if (auto const cs = tables_.servers.find(found->second.cs);
      cs != tables_.servers.end() && cs->second.connection == connection) {
    cs->second.connection = {};
    if (cs->second.state == "active") {
      set_cs_state(cs->first, cs->second, "inactive", "connection lost");
    }
  }
  peers_.erase(found);
}

void Metadata_server::on_message(Connection_id connection, Message& message) {
  auto const found = peers_.find(connection);
  if (found == peers_.end() || !started_) return;
  Mds_request request;
  if (message.header.operation != Operation::control || message.header.request_id == 0 ||
      !request.ParseFromArray(message.meta.data(), static_cast<int>(message.meta.size()))) {
    log_.warn("malformed message",
              {{"peer", found->second.info.name}, {"address", found->second.info.address}});
    network_.close(connection);
    on_disconnected(connection, failure(Errc::bad_request, "malformed message"));
    return;
  }
  handle(connection, found->second, message.header.request_id, std::move(request));
}

void Metadata_server::handle(Connection_id connection, Peer& peer, std::uint64_t request_id,
                             Mds_request request) {
  if (!leads()) return refuse_as_follower(connection, request_id);
  if (auto const allowed = check_role(peer, request); !allowed.has_value()) {
    refuse(connection, request_id, allowed.error());
    return;
  }
  if (request.session() != 0) heard(Session_id{request.session()}, connection);
  switch (request.op_case()) {
    case Mds_request::kCsHeartbeat: {
      auto const accepted = cs_heartbeat(connection, peer, *request.mutable_cs_heartbeat());
      proto::Mds_reply answer_now;
      if (accepted.has_value()) {
        auto& settings = *answer_now.mutable_registered_cs();
        settings.set_scrub_period_s(tables_.scrub_period_s);
        settings.set_probe(tables_.slow.is_slow(peer.cs));
        settings.set_log_level(tables_.log_level);
        reply(connection, request_id, answer_now);
      } else {
        refuse(connection, request_id, accepted.error());
      }
      return;
    }
    case Mds_request::kAskHolder:
      ask_holder(connection, request_id, request.ask_holder());
      return;
    case Mds_request::kHolderAnswer:
      holder_answered(connection, request_id, request.holder_answer());
      return;
    default:
      break;
  }
  if (client::is_command(request)) {
    command(connection, peer, request_id, std::move(request));
  } else {
    queries_.push_back({connection, request_id, std::move(request)});
  }
}

Outcome<void> Metadata_server::check_role(Peer const& peer, Mds_request const& request) const {
  auto const role = peer.info.role;
  switch (request.op_case()) {
    case Mds_request::OP_NOT_SET:
      return failure(Errc::bad_request, "the request asks for nothing this MDS knows");
    case Mds_request::kSetCsState:
    case Mds_request::kExpireSessions:
    case Mds_request::kStartSync:
    case Mds_request::kDropOffline:
    case Mds_request::kAddEvent:
    case Mds_request::kBootstrap:
    case Mds_request::kRemoveReplicas:
    case Mds_request::kDropCs:
    case Mds_request::kAddGarbage:
      return failure(Errc::refused, "only the MDS itself may do that");
    case Mds_request::kRegisterCs:
    case Mds_request::kCsHeartbeat:
    case Mds_request::kSyncDone:
    case Mds_request::kDeletedChunks:
    case Mds_request::kInventory:
    case Mds_request::kReportDamage:
      if (role == Role::cs) return success();
      return failure(Errc::refused, "only a chunk server may do that");
    case Mds_request::kOpenSession:
    case Mds_request::kHeartbeat:
    case Mds_request::kCloseSession:
    case Mds_request::kGetConfig:
      return success();
    default:
      if (role == Role::client || role == Role::tool) return success();
      return failure(Errc::refused, "only clients and tools may do that");
  }
}

void Metadata_server::heard(Session_id session, Connection_id connection) {
  auto const found = tables_.sessions.find(session);
  if (found == tables_.sessions.end()) return;
  found->second.last_heard = clock_.now();
  if (found->second.connection == connection) return;
  found->second.connection = connection;
  // Pushes that were on their way when the old connection broke are lost.
  push_whole_maps(session, connection);
}

void Metadata_server::reply(Connection_id connection, std::uint64_t request_id,
                            proto::Mds_reply& reply) {
  reply.set_mds(options_.id.value);
  send(connection, request_id, reply);
}

void Metadata_server::refuse(Connection_id connection, std::uint64_t request_id,
                             Failure const& why) {
  proto::Mds_reply refused;
  refused.set_status(static_cast<std::uint32_t>(errc_of(why.code)));
  refused.set_text(why.text);
  reply(connection, request_id, refused);
}

void Metadata_server::send(Connection_id connection, std::uint64_t request_id,
                           google::protobuf::MessageLite const& message) {
  auto const bytes = message.ByteSizeLong();
  Message out;
  if (bytes > meta_bytes_max) {
    log_.error("an answer is too large to send", {{"bytes", bytes}});
    if (request_id != 0) {
      refuse(connection, request_id,
             failure(Errc::too_large, "the answer is larger than a message can be"));
    }
    return;
  }
  out.header.is_reply = request_id != 0;
  out.header.request_id = request_id;
  out.meta = Slice::allocate(bytes);
  bool const fits = message.SerializeToArray(out.meta.data(), static_cast<int>(bytes));
  PS_ASSERT(fits);
  network_.send(connection, std::move(out));
}

void Metadata_server::on_turn_end() {
  if (!started_ || fatal_) return;
  ++turns_;
  if (!queries_.empty()) answer_queries();
  entries_.flush();
}

void Metadata_server::on_tick() {
  if (!started_ || fatal_) return;
  auto const now = clock_.now();
  bool const leads = this->leads();
  watch_own_load(now);
  if (leads) {
    watch_sessions(now);
    watch_servers(now);
    expire_questions(now);
    watch_slow(now);
    watch_orphans(now);
  }
  if (stalled_ && now - last_second_ >= std::chrono::milliseconds(500)) apply_queue();
  if (now - last_second_ >= std::chrono::seconds(1)) {
    last_second_ = now;
    entries_.tick();
    watch_space();
    checkpoint();
    watch_leader(now);
    if (leads) {
      arrange_members();
      watch_members(now);
      if (low_space_ || stalled_) yield_leadership();
    }
  }
  auto const rest = planner_due_ ? options_.planner_pause : options_.planner_interval;
  if (leads && !fatal_ && now - last_plan_ >= rest) plan(now);
  if (!fatal_) on_turn_end();
}

void Metadata_server::fatal(Failure const& why) {
  if (std::exchange(fatal_, true)) return;
  log_.error(why.text);
  if (options_.on_fatal) options_.on_fatal(why);
}

}  // namespace pstorage::mds
