// Chunk_server and the MDS: registration, heartbeats, orders.
#include "core/version.h"
#include "cs/chunk_server.h"

namespace pstorage::cs {
namespace {

constexpr Duration register_retry = std::chrono::seconds(2);
constexpr Duration heartbeat_patience = std::chrono::seconds(3);
constexpr Duration stalled_flag_after = std::chrono::seconds(4);

}  // namespace

void Chunk_server::serve(std::vector<Address> const& addresses) {
  addresses_ = addresses;
  if (options_.mds_servers.empty()) return;
  client::Mds_session_options session;
  session.servers = options_.mds_servers;
  session.name = "csd[" + std::to_string(options_.identity.cs.value) + "]@" + options_.host_name;
  session.host = options_.host;
  session.on_servers = options_.on_mds_servers;
  mds_ = std::make_unique<client::Mds_session>(clock_, network_, random_, log_, session);
  mds_->set_push_handler([this](proto::Mds_push const& push) { on_push(push); });
  mds_->set_link_handler([this](bool up) {
    registered_ = false;
    if (up) register_with_mds();
  });
  if (options_.executor != nullptr) {
    session.on_servers = nullptr;
    settler_ = std::make_unique<Settler>(clock_, network_, random_, log_, *options_.executor,
                                         client::Cluster_options{.session = session, .links = {}});
  }
  // A call makes the session look for the master.
  register_with_mds();
}

void Chunk_server::register_with_mds() {
  if (registering_ || stopping_ || dropped_) return;
  registering_ = true;
  proto::Mds_request request;
  proto::Register_cs& message = *request.mutable_register_cs();
  message.set_cs(options_.identity.cs.value);
  message.set_repository_uuid(options_.identity.uuid);
  message.set_incarnation(incarnation_.value);
  for (Address const& address : addresses_) message.add_addresses(address.text());
  message.set_host_id(options_.host.value);
  message.set_host_name(options_.host_name);
  message.set_location(options_.location);
  message.set_total_bytes(store_->space().total_bytes);
  message.set_free_bytes(store_->space().free_bytes);
  message.set_flags(flags());
  mds_->call(std::move(request), Duration{0},
             [this](Outcome<proto::Mds_reply> const& reply) { registration_answered(reply); });
}

void Chunk_server::registration_answered(Outcome<proto::Mds_reply> const& reply) {
  registering_ = false;
  registered_ = reply.has_value();
  register_at_ = clock_.now() + register_retry;
  if (reply.has_value()) {
    log_.info("registered with the MDS", {{"cs", options_.identity.cs}});
    auto const& settings = reply.value().registered_cs();
    scrubber_->set_period(std::chrono::seconds(settings.scrub_period_s()));
    if (options_.set_log_level) options_.set_log_level(settings.log_level());
    if (settings.encryption() && !options_.encrypted) {
      log_.warn(
          "the cluster wants encryption (net.encryption) and this chunk server was started "
          "without: restart it with --encrypt");
    }
    return send_inventory();
  }
  if (errc_of(reply.error().code) != Errc::dropped) {
    return log_.error("the MDS refuses this chunk server: " + reply.error().text);
  }
  // Said once: it will never be taken back.
  dropped_ = true;
  if (options_.on_dropped) return options_.on_dropped(reply.error());
  log_.error(reply.error().text);
}

std::string Chunk_server::flags() const {
  if (store_->is_read_only()) return "H";
  // J: write journal, C: checksums; c: nothing in the journal that the chunk files do not have; T:
  // the disk does not finish what it was asked for.
  std::string text = store_->journal().used_bytes() == 0 ? "JCc" : "JC";
  if (store_->stalled(clock_.now()) >= stalled_flag_after) text += "T";
  return text;
}

void Chunk_server::heartbeat() {
  if (!mds_) return;
  mds_->on_tick();
  Time_point const now = clock_.now();
  if (!registered_) {
    // Not only over a link that stands: a session that has expired keeps none up by itself.
    if (now >= register_at_) register_with_mds();
    return;
  }
  if (heartbeat_sent_ || now - last_heartbeat_ < options_.heartbeat_interval) return;
  last_heartbeat_ = now;
  heartbeat_sent_ = true;
  proto::Mds_request request;
  proto::Cs_heartbeat& message = *request.mutable_cs_heartbeat();
  message.set_cs(options_.identity.cs.value);
  message.set_incarnation(incarnation_.value);
  message.set_total_bytes(store_->space().total_bytes);
  message.set_free_bytes(store_->space().free_bytes);
  message.set_replicas(static_cast<std::uint32_t>(store_->chunk_count()));
  auto const latency = store_->latency().summary(now);
  message.set_io_latency_us(latency.average_us);
  message.set_io_latency_max_us(latency.maximum_us);
  message.set_queue_depth(static_cast<std::uint32_t>(store_->waiting() + deferred_.size()));
  message.set_io_wait_percent(ticks_ == 0 ? 0 : ticks_waiting_ * 100 / ticks_);
  ticks_ = ticks_waiting_ = 0;
  message.set_flags(flags());
  message.set_read_only(store_->is_read_only());
  message.set_read_only_reason(store_->read_only_reason());
  message.set_read_bytes(read_bytes_);
  message.set_write_bytes(write_bytes_);
  message.set_read_ops(read_ops_);
  message.set_write_ops(write_ops_);
  message.set_syncs(store_->syncs());
  message.set_scrubbed_bytes(scrubber_->scrubbed_bytes());
  message.set_scrub_errors(scrubber_->errors());
  message.set_scrub_repaired(healer_->repaired());
  message.set_pulled_bytes(sync_->pulled_bytes());
  message.set_wall_ms(clock_.wall_ms());
  message.set_version(version());
  message.set_stalled_ms(
      static_cast<std::uint32_t>(store_->stalled(now) / std::chrono::milliseconds(1)));
  mds_->call(std::move(request), heartbeat_patience,
             [this](Outcome<proto::Mds_reply> const& reply) {
               heartbeat_sent_ = false;
               if (reply.has_value()) {
                 auto const& settings = reply.value().registered_cs();
                 store_->set_probing(settings.probe());
                 if (options_.set_log_level) options_.set_log_level(settings.log_level());
                 return scrubber_->set_period(std::chrono::seconds(settings.scrub_period_s()));
               }
               // Another master, or one that was started anew, does not know this server yet.
               if (errc_of(reply.error().code) == Errc::refused) registered_ = false;
             });
}

void Chunk_server::on_push(proto::Mds_push const& push) {
  if (stopping_) return;
  if (push.has_sync_orders()) {
    for (auto const& order : push.sync_orders().orders()) sync_->order(order);
  }
  if (push.has_delete_chunks()) delete_chunks(push.delete_chunks());
  if (push.has_settle_files() && settler_) settler_->order(push.settle_files());
}

void Chunk_server::delete_chunks(proto::Delete_chunks const& push) {
  struct Batch {
    proto::Deleted_chunks deleted;
    int left = 0;
  };
  auto const batch = std::make_shared<Batch>();
  batch->left = push.chunks_size();
  for (auto const id : push.chunks()) {
    sync_->chunk_removed({id});
    store_->remove({id}, [this, batch, id, alive = std::weak_ptr<bool>(alive_)](Errc done) {
      if (alive.expired()) return;
      // What could not be removed now stays on the MDS's list and comes again.
      if (done == Errc::ok) batch->deleted.add_chunks(id);
      if (--batch->left != 0 || batch->deleted.chunks().empty() || stopping_) return;
      proto::Mds_request request;
      batch->deleted.set_cs(options_.identity.cs.value);
      *request.mutable_deleted_chunks() = batch->deleted;
      mds_->call(std::move(request), Duration{0}, [](Outcome<proto::Mds_reply> const&) {});
    });
  }
}

}  // namespace pstorage::cs
