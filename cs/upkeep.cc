// Chunk_server's work in the background that nobody waits for: scrub, repair of single blocks,
// inventories; and `pstorage check`, which asks for the first two.
#include <algorithm>

#include "core/crc32c.h"
#include "cs/chunk_server.h"

namespace pstorage::cs {
namespace {

constexpr Duration inventory_interval = std::chrono::minutes(10);
constexpr std::size_t inventory_piece = 4096;
constexpr std::uint32_t turns_a_sample = 4;
constexpr Duration lateness_max = std::chrono::milliseconds(100);
constexpr std::size_t slow_pulls_max = 1024;
constexpr Duration query_patience = std::chrono::seconds(10);

}  // namespace

void Chunk_server::start_upkeep() {
  scrubber_ = std::make_unique<Scrubber>(
      clock_, random_, *store_, [this](Chunk_id chunk, std::vector<std::uint32_t> const& blocks) {
        log_.warn("the scrub has found damaged blocks",
                  {{"chunk", chunk}, {"blocks", blocks.size()}});
        healer_->heal(chunk, blocks);
      });
  healer_ = std::make_unique<Block_healer>(
      clock_, network_, log_, *store_, options_.identity.cs, options_.host,
      [this](Chunk_id chunk, std::uint32_t blocks,
             std::function<void(Outcome<proto::File_map>)> done) {
        find_replicas(chunk, blocks, std::move(done));
      });
}

void Chunk_server::find_replicas(Chunk_id chunk, std::uint32_t blocks,
                                 std::function<void(Outcome<proto::File_map>)> done) {
  if (!mds_ || !registered_) return done(failure(Errc::unavailable, "no MDS is reachable"));
  proto::Mds_request request;
  auto& damage = *request.mutable_report_damage();
  damage.set_cs(options_.identity.cs.value);
  damage.set_chunk(chunk.value);
  damage.set_blocks(blocks);
  mds_->call(std::move(request), query_patience,
             [done = std::move(done)](Outcome<proto::Mds_reply> const& reply) {
               if (reply.has_error()) return done(reply.error());
               done(reply.value().map());
             });
}

void Chunk_server::upkeep() {
  auto const served = read_ops_ + write_ops_;
  bool const is_busy = std::exchange(served_before_, served) != served;
  scrubber_->on_tick(is_busy);
  healer_->on_tick();
  step_checks();
  if (registered_ && clock_.now() - last_inventory_ >= inventory_interval) send_inventory();
}

/// What lies on this disk, for the MDS to find what is no longer wanted: chunks that were removed
/// while their deletion, or the news of it, was lost.
void Chunk_server::send_inventory() {
  last_inventory_ = clock_.now();
  auto const& names = store_->names();
  for (auto at = names.begin(); at != names.end();) {
    proto::Mds_request request;
    auto& inventory = *request.mutable_inventory();
    inventory.set_cs(options_.identity.cs.value);
    for (std::size_t i = 0; i < inventory_piece && at != names.end(); ++i, ++at) {
      inventory.add_chunks(at->value);
    }
    // One that is lost comes again.
    mds_->call(std::move(request), query_patience, [](Outcome<proto::Mds_reply> const&) {});
  }
}

// ---------------------------------------------------------------- pace

/// The first request of a client in this turn. What a client waits for here is the rest of the
/// turn: all answers leave at its end.
void Chunk_server::note_client() {
  turn_has_client_ = true;
  if (++client_turns_ % turns_a_sample == 0) turn_began_ = clock_.now();
}

void Chunk_server::end_measured_turn() {
  turn_has_client_ = false;
  if (!turn_began_) return;
  pace_.client_served(clock_.now() - *turn_began_ + lateness_);
  turn_began_.reset();
}

/// A tick that comes late tells how long this process waits for a CPU; requests wait as long.
void Chunk_server::note_lateness(Time_point now) {
  auto const late = now - last_tick_ - tick_interval;
  lateness_ = std::clamp(late, Duration{0}, lateness_max);
  last_tick_ = now;
  pace_.advance(now);
}

/// Pulls of other servers keep the pace; they are told nothing and wait a little longer.
bool Chunk_server::must_wait_for_pace(Connection_id connection, Message& message) {
  if (pace_.may_take() || slow_pulls_.size() >= slow_pulls_max) {
    pace_.took(message.header.length);
    return false;
  }
  slow_pulls_.push_back({connection, std::move(message)});
  return true;
}

void Chunk_server::retry_pulls() {
  while (!slow_pulls_.empty() && pace_.may_take()) {
    Deferred next = std::move(slow_pulls_.front());
    slow_pulls_.pop_front();
    auto const peer = peers_.find(next.connection);
    if (peer != peers_.end()) dispatch(next.connection, peer->second.role, next.message);
  }
}

// ---------------------------------------------------------------- check

void Chunk_server::handle_check(Connection_id connection, Header const& header,
                                proto::Check_chunk const& check) {
  scrubber_->check(
      Chunk_id{check.chunk()},
      [this, connection, header, check, alive = std::weak_ptr<bool>(alive_)](
          Errc status, std::vector<std::uint32_t> const& bad) {
        if (alive.expired()) return;
        if (status != Errc::ok) return send_control(connection, header, status);
        if (check.repair() && !bad.empty()) healer_->heal(Chunk_id{check.chunk()}, bad);
        checks_.push_back({connection, header, check, static_cast<std::uint32_t>(bad.size())});
      });
}

/// Answers checks once what they wanted repaired has been tried.
void Chunk_server::step_checks() {
  if (checks_.empty() || !healer_->is_idle()) return;
  for (auto const& check : std::exchange(checks_, {})) {
    Chunk* const chunk = store_->find(Chunk_id{check.request.chunk()});
    if (chunk == nullptr) {
      send_control(check.connection, check.header, Errc::not_found);
      continue;
    }
    proto::Cs_reply reply;
    auto& checked = *reply.mutable_checked();
    std::uint32_t crc = 0;
    for (std::uint32_t i = 0; i < chunk->replica.chunk_size / block_bytes; ++i) {
      auto const record = store_->block_record(*chunk, i);
      bool const is_hole = (record.flags & block_hole) != 0;
      checked.set_blocks(checked.blocks() + (is_hole ? 0 : 1));
      // A hole that was written as one and one that never was are the same to a reader.
      Block_record const compared = is_hole ? Block_record{0, 0, block_hole} : record;
      crc = crc32c(std::as_bytes(std::span(&compared, 1)), crc);
    }
    checked.set_bad(check.bad);
    checked.set_table_crc(crc);
    checked.set_last_stamp(chunk->replica.last_stamp.value);
    checked.set_version(chunk->replica.version.value);
    checked.set_syncing(chunk->replica.syncing);
    send_control(check.connection, check.header, reply);
  }
}

}  // namespace pstorage::cs
