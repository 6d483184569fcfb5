// File_volume: allocation, failed replicas and maps at the MDS; links; the end of the lease.
#include <algorithm>
#include <set>
#include <utility>

#include "core/client/file_volume.h"

namespace pstorage::client {
namespace {

// For the comparison of chunks that nobody has used since a holder left without closing. Whoever
// closes goes without; the next holder does it then.
constexpr Duration close_patience = std::chrono::seconds(5);
constexpr Duration freeze_patience = std::chrono::seconds(30);

}  // namespace

// ------------------------------------------------------------------ MDS

void File_volume::ask_allocation(Chunk_io& chunk) { allocations_.push_back(&chunk); }

void File_volume::send_allocations() {
  if (allocations_.empty() || batching_ > 0) return;
  auto const asked = std::exchange(allocations_, {});
  proto::Mds_request request;
  auto& allocate = *request.mutable_allocate();
  allocate.set_file(file_.value);
  allocate.set_epoch(epoch_.value);
  allocate.set_beyond_end(grows_);
  for (Chunk_io const* chunk : asked) allocate.add_indexes(chunk->index());
  host_.mds().call(
      std::move(request), Duration{0},
      [this, asked, alive = std::weak_ptr<bool>(alive_)](Outcome<proto::Mds_reply> answer) {
        auto const token = alive.lock();
        if (token == nullptr || !*token || dead_ != Errc::ok) return;
        if (answer.has_error()) {
          if (lost_with(answer.error())) return;
          host_.log().warn("no new chunk", {{"file", path_}, {"reason", answer.error().text}});
          for (Chunk_io* chunk : asked) chunk->allocation_failed(errc_of(answer.error().code));
          return end_of_event();
        }
        proto::File_map const& map = answer.value().map();
        host_.learn_servers(map);
        ++batching_;
        for (auto const& one : map.chunks()) chunk_at(one.index()).adopt(one, true);
        for (Chunk_io* chunk : asked)
          if (!chunk->is_mapped()) chunk->allocation_failed(Errc::unavailable);
        --batching_;
        end_of_event();
      });
}

void File_volume::ask_report(Chunk_io& chunk, std::vector<Cs_id> const& failed,
                             std::string const& why) {
  reports_.push_back({&chunk, chunk.version(), failed, why, !chunk.is_idle()});
}

void File_volume::send_reports() {
  if (reports_.empty() || batching_ > 0) return;
  auto reports = std::exchange(reports_, {});
  // Chunks with requests waiting first, in a command of their own: it is answered sooner.
  for (bool const waiting_turn : {true, false}) {
    proto::Mds_request request;
    auto& report = *request.mutable_report_failed();
    report.set_file(file_.value);
    report.set_epoch(epoch_.value);
    std::vector<std::pair<Chunk_io*, Version>> asked;
    std::set<Cs_id> slow;
    for (Report const& one : reports) {
      if (one.waiting_io != waiting_turn) continue;
      auto& entry = *report.add_chunks();
      entry.set_chunk(one.chunk->id().value);
      entry.set_version(one.version.value);
      for (Cs_id const cs : one.failed) {
        entry.add_failed(cs.value);
        if (link_of(cs).is_up() && link_of(cs).latency().is_slow()) slow.insert(cs);
      }
      report.set_reason(one.why);
      asked.emplace_back(one.chunk, one.version);
    }
    if (asked.empty()) continue;
    for (Cs_id const cs : slow) report.add_slow(cs.value);
    host_.mds().call(
        std::move(request), Duration{0},
        [this, asked, alive = std::weak_ptr<bool>(alive_)](Outcome<proto::Mds_reply> answer) {
          auto const token = alive.lock();
          if (token == nullptr || !*token || dead_ != Errc::ok) return;
          if (answer.has_error() && lost_with(answer.error())) return;
          for (auto const& [chunk, version] : asked) chunk->report_answered(version);
          if (answer.has_value()) return adopt_map(answer.value().map());
          end_of_event();
        });
  }
}

void File_volume::ask_map(Chunk_io&) {
  if (std::exchange(map_asked_, true)) return;
  proto::Mds_request request;
  request.mutable_get_map()->set_file(file_.value);
  for (auto const& [index, chunk] : chunks_)
    if (chunk->is_mapped()) request.mutable_get_map()->add_indexes(index);
  host_.mds().call(std::move(request), Duration{0},
                   [this, alive = std::weak_ptr<bool>(alive_)](Outcome<proto::Mds_reply> answer) {
                     auto const token = alive.lock();
                     if (token == nullptr || !*token || dead_ != Errc::ok) return;
                     map_asked_ = false;
                     if (!answer.has_error()) return adopt_map(answer.value().map());
                     if (is_reader() && errc_of(answer.error().code) == Errc::not_found)
                       lose_lease("the file was removed");
                   });
}

void File_volume::confirm_map(Chunk_io& chunk) {
  // Not shared with ask_map(): an answer that is older than the question proves nothing.
  proto::Mds_request request;
  request.mutable_get_map()->set_file(file_.value);
  request.mutable_get_map()->add_indexes(chunk.index());
  host_.mds().call(
      std::move(request), Duration{0},
      [this, &chunk, alive = std::weak_ptr<bool>(alive_)](Outcome<proto::Mds_reply> answer) {
        auto const token = alive.lock();
        if (token == nullptr || !*token || dead_ != Errc::ok) return;
        bool const has_it = answer.has_value() && answer.value().map().chunks_size() == 1;
        ++batching_;
        if (has_it) host_.learn_servers(answer.value().map());
        chunk.map_confirmed(has_it ? &answer.value().map().chunks(0) : nullptr);
        --batching_;
        end_of_event();
      });
}

// ------------------------------------------------------------------ links, lease, life

void File_volume::on_link_up(Cs_link& link) {
  ++batching_;
  for (auto& [_, chunk] : chunks_) chunk->link_up(link);
  --batching_;
  advance_sealing();
  flush_changed_ = true;
  end_of_event();
}

void File_volume::on_link_down(Cs_link& link) {
  ++batching_;
  for (auto& [_, chunk] : chunks_) chunk->link_down(link);
  --batching_;
  give_up_confirmation();
  advance_sealing();
  end_of_event();
}

void File_volume::on_tick() {
  if (dead_ != Errc::ok) return;
  ++batching_;
  auto const noted = std::exchange(restless_, {});
  for (Chunk_io* chunk : noted) chunk->on_tick();
  for (Chunk_io* chunk : noted)
    if (chunk->is_calm())
      chunk->calmed();
    else
      restless_.push_back(chunk);
  if (!flushes_.empty()) drop_slow_servers();
  --batching_;
  if (settling_ != nullptr && now() >= settling_->give_up) end_settling(Errc::timed_out);
  answer_comparisons();
  advance_sealing();
  if (!flushes_.empty()) flush_changed_ = true;
  end_of_event();
}

void File_volume::compare(std::uint32_t index, Done done) {
  Errc const error = serving_ ? check(0, 0) : Errc::busy;
  if (error != Errc::ok)
    return answer_later([done = std::move(done), error] { done(make_error_code(error)); });
  distrust_cache();  // what was read may be from the replica that is wrong
  if (untouched_.contains(index) || chunks_.contains(index)) {
    if (Chunk_io& chunk = chunk_at(index); chunk.is_mapped()) chunk.compare();
  }
  comparisons_.push_back({index, std::move(done)});
  end_of_event();
}

void File_volume::answer_comparisons() {
  for (auto& comparison : std::exchange(comparisons_, {})) {
    auto const chunk = chunks_.find(comparison.index);
    if (chunk != chunks_.end() && chunk->second->is_comparing())
      comparisons_.push_back(std::move(comparison));
    else
      start_flush(std::move(comparison.done), Errc::ok);
  }
}

void File_volume::lease_lost() { lose_lease("a chunk server knows a newer writer"); }

bool File_volume::lost_with(Failure const& refused) {
  Errc const why = errc_of(refused.code);
  if (why != Errc::stale_epoch && why != Errc::session_expired) return false;
  lose_lease(refused.text);
  return true;
}

void File_volume::lose_lease(std::string const& why) {
  if (dead_ != Errc::ok) return;
  host_.log().error("the lease is lost; every request is refused from now on",
                    {{"file", path_}, {"epoch", epoch_}, {"reason", why}});
  abort_all(Errc::stale_epoch);
}

void File_volume::abort_all(Errc why) {
  dead_ = why;
  for (auto& [_, chunk] : chunks_) chunk->abort(why);
  abort_cached_reads(why);
  reports_.clear();
  allocations_.clear();
  give_up_confirmation();
  for (Request* const request : unconfirmed_) request->error = why;
  answer_confirmed(std::exchange(unconfirmed_, {}));
  if (settling_ != nullptr) end_settling(why);
  for (auto& comparison : std::exchange(comparisons_, {}))
    answer_later([done = std::move(comparison.done), why] { done(make_error_code(why)); });
  for (auto& [_, flush] : std::exchange(flushes_, {}))
    answer_later([done = std::move(flush.done), why] { done(make_error_code(why)); });
  if (sealing_ != nullptr) {
    auto sealing = std::move(sealing_);
    answer_later([done = std::move(sealing->done), why] {
      done(failure(why, std::string("the take-over was overtaken: ") + message_of(why)));
    });
  }
  defer_completions();
}

void File_volume::close_with(proto::Inode_change change, Done done) {
  if (dead_ != Errc::ok || closing_)
    return answer_later([done = std::move(done), why = dead_] {
      if (why == Errc::ok) return done(make_error_code(Errc::closed));
      done(make_error_code(why));
    });
  settle(now() + close_patience,
         [this, change = std::move(change), done = std::move(done)](Result<void> const& settled) {
           // Also what settling has changed.
           flush([this, change, done, settled](Result<void> const& flushed) {
             closing_ = true;
             if (reader_) return done(flushed);
             send_close(change, settled.has_value(), flushed, done);
           });
         });
}

void File_volume::send_close(proto::Inode_change const& change, bool settled,
                             Result<void> const& flushed, Done const& done) {
  proto::Mds_request request;
  auto& close = *request.mutable_close_file();
  close.set_file(file_.value);
  close.set_epoch(epoch_.value);
  close.set_shared(shared_);
  close.set_unsettled(!settled || !flushed.has_value());
  // Without the data behind it a new size would show zeros for good.
  if (flushed.has_value() && change.ByteSizeLong() != 0) *close.mutable_change() = change;
  // Nobody waits for ever, but the lease must not stay here for as long as the process lives.
  auto again = [mds = &host_.mds(), request](Outcome<proto::Mds_reply> const& answer) {
    if (answer.has_value() || errc_of(answer.error().code) == Errc::session_expired) return;
    mds->call(request, Duration{0}, [](Outcome<proto::Mds_reply> const&) {});
  };
  host_.mds().call(
      std::move(request), std::chrono::seconds(5),
      [done, flushed](Outcome<proto::Mds_reply> const&) { done(flushed); }, std::move(again));
}

std::uint64_t File_volume::mapped_chunks() const {
  auto const used = std::count_if(chunks_.begin(), chunks_.end(),
                                  [](auto const& chunk) { return chunk.second->is_mapped(); });
  return untouched_.size() + static_cast<std::uint64_t>(used);
}

void File_volume::give_lease_back(Done done) {
  settle(now() + freeze_patience, [this, done = std::move(done)](Result<void> const& settled) {
    if (!settled) return done(settled);
    flush_and_give_back(done);
  });
}

void File_volume::flush_and_give_back(Done done) {
  flush([this, done = std::move(done)](Result<void> const& flushed) {
    if (!flushed) return done(flushed);
    reader_ = true;
    cached_.reset();  // nobody confirms reads from it any more
    proto::Mds_request request;
    request.mutable_close_file()->set_file(file_.value);
    request.mutable_close_file()->set_epoch(epoch_.value);
    host_.mds().call(
        std::move(request), Duration{0},
        [this, done, alive = std::weak_ptr<bool>(alive_)](Outcome<proto::Mds_reply> const& answer) {
          auto const token = alive.lock();
          if (token == nullptr || !*token) return;
          if (answer.has_error() && lost_with(answer.error())) return done(Errc::stale_epoch);
          if (answer.has_error()) return done(answer.error().code);
          done(success());
        });
  });
}

/// Chunks behind the end are gone for good: what comes there later are others. Whoever cut the file
/// has waited for its requests there.
void File_volume::set_size(std::uint64_t bytes) {
  auto const chunks = static_cast<std::uint32_t>((bytes + chunk_bytes_ - 1) / chunk_bytes_);
  bool const shrinks = bytes < size_;
  size_ = bytes;
  if (!shrinks) return;
  untouched_.erase(untouched_.lower_bound(chunks), untouched_.end());
  std::set<Chunk_io*> gone;
  for (auto place = chunks_.begin(); place != chunks_.end();) {
    if (place->first < chunks) {
      ++place;
      continue;
    }
    place->second->abort(Errc::closed);
    gone.insert(place->second.get());
    retired_.push_back(std::move(place->second));
    chunks_.erase(place++);
  }
  auto const is_gone = [&](Chunk_io* chunk) { return gone.contains(chunk); };
  std::erase_if(restless_, is_gone);
  std::erase_if(allocations_, is_gone);
  std::erase_if(reports_, [&](Report const& report) { return is_gone(report.chunk); });
  for (auto& [_, server] : servers_) std::erase_if(server.dirty, is_gone);
  for (auto& [_, flush] : flushes_)
    for (Flush_part& part : flush.parts) std::erase_if(part.chunks, is_gone);
}

std::string File_volume::waiting_reason() const {
  for (auto const& [_, chunk] : chunks_)
    if (auto reason = chunk->waiting_reason(); !reason.empty()) return reason;
  for (auto const& [_, flush] : flushes_)
    for (Flush_part const& part : flush.parts)
      return "a flush waits for cs " + std::to_string(part.cs.value);
  return {};
}

}  // namespace pstorage::client
