// File_volume: FLUSH. Answered when every CS that held unflushed writes of the file has made them
// durable, or is no longer a member of the chunks in question.
#include <algorithm>
#include <utility>

#include "core/client/file_volume.h"
#include "core/mutant.h"

namespace pstorage::client {

void File_volume::mark_dirty(Chunk_io& chunk, Cs_id cs) { servers_[cs].dirty.push_back(&chunk); }

void File_volume::writes_lost(Chunk_io& chunk) {
  host_.log().error("every replica lost writes that were not flushed",
                    {{"file", path_}, {"chunk", chunk.id()}});
  // Every FLUSH under way may cover some of them, the next one covers the rest. One may be a write
  // with FUA that is being made durable, or whose other pieces are still on their way.
  for (auto& [_, flush] : flushes_)
    if (flush.error == Errc::ok) flush.error = Errc::lost_writes;
  lost_writes_ = true;
  is_settled_ = false;
  ++losses_;
  distrust_cache();
}

void File_volume::flush(Done done) {
  if (Errc const error = check(0, 0); error != Errc::ok)
    return answer_later([done = std::move(done), error] { done(make_error_code(error)); });
  ++counters_.flushes;
  // Only a FLUSH tells of them: an error of a later write with FUA would be taken for its own.
  start_flush(std::move(done), std::exchange(lost_writes_, false) ? Errc::lost_writes : Errc::ok);
}

void File_volume::start_flush(Done done, Errc error) {
  std::uint64_t const id = next_flush_++;
  Flush& flush = flushes_[id];
  flush.done = std::move(done);
  flush.error = error;
  if (cached_ != nullptr) flush.changes = cached_->guard.flush_begins();
  for (auto& [cs, server] : servers_) {
    if (server.dirty.empty()) continue;
    flush.parts.push_back({.cs = cs, .chunks = std::exchange(server.dirty, {}), .sent = false});
  }
  if (PS_MUTANT(flush_without_sync)) flush.parts.clear();
  if (flush.parts.empty()) return answer_flushes();
  for (Flush_part& part : flush.parts) {
    // Cleared now: a write that is answered after this is not covered and marks it again.
    for (Chunk_io* chunk : part.chunks) chunk->flushed_at(part.cs);
    send_flush_part(id, part);
  }
}

void File_volume::send_flush_part(std::uint64_t id, Flush_part& part) {
  Cs_link& link = link_of(part.cs);
  bool const all_open = std::all_of(part.chunks.begin(), part.chunks.end(),
                                    [&](Chunk_io* chunk) { return chunk->opened_at(part.cs); });
  if (!link.is_up() || !all_open) {
    for (Chunk_io* chunk : part.chunks) chunk->dirty_again_at(part.cs);
    flush_changed_ = true;
    return;
  }
  Message message;
  message.header.operation = Operation::flush;
  message.header.chunk = {file_.value};
  message.header.stamp = Stamp::of(epoch_, 0);
  part.sent = true;
  Cs_id const cs = part.cs;
  link.call(std::move(message),
            [this, id, cs, alive = std::weak_ptr<bool>(alive_)](Message* reply) {
              auto const token = alive.lock();
              if (token == nullptr || !*token || dead_ != Errc::ok) return;
              if (reply == nullptr)
                flush_lost(id, cs);
              else
                flush_answered(id, cs, *reply);
              if (reply != nullptr) end_of_event();
            });
}

void File_volume::flush_lost(std::uint64_t id, Cs_id cs) {
  auto const flush = flushes_.find(id);
  if (flush == flushes_.end()) return;
  for (Flush_part& part : flush->second.parts) {
    if (part.cs != cs) continue;
    part.sent = false;
    for (Chunk_io* chunk : part.chunks) chunk->dirty_again_at(cs);
  }
  flush_changed_ = true;
}

void File_volume::flush_answered(std::uint64_t id, Cs_id cs, Message& reply) {
  Errc const status = reply.header.status;
  if (status == Errc::ok) return finish_part(id, cs);
  if (status == Errc::stale_epoch) return lease_lost();
  auto const flush = flushes_.find(id);
  if (flush == flushes_.end()) return;
  host_.log().warn("a chunk server could not flush", {{"cs", cs}, {"reason", message_of(status)}});
  flush_lost(id, cs);
  for (Flush_part& part : flush->second.parts) {
    if (part.cs != cs) continue;
    bool others = true;
    for (Chunk_io* chunk : part.chunks) others = chunk->flush_refused_at(cs, status) && others;
    if (others) continue;
    // Nobody else has the data: the truth is that it may not be durable.
    flush->second.error = Errc::io_error;
    return finish_part(id, cs);
  }
}

void File_volume::continue_flushes() {
  std::vector<std::pair<std::uint64_t, Cs_id>> done;
  for (auto& [id, flush] : flushes_)
    for (Flush_part& part : flush.parts) {
      if (part.sent) {
        // A server that was dropped for being slow need not answer any more.
        bool const is_awaited =
            std::any_of(part.chunks.begin(), part.chunks.end(),
                        [&](Chunk_io* chunk) { return chunk->is_member(part.cs); });
        if (!is_awaited) done.emplace_back(id, part.cs);
        continue;
      }
      bool const still_dirty =
          std::any_of(part.chunks.begin(), part.chunks.end(),
                      [&](Chunk_io* chunk) { return chunk->dirty_at(part.cs); });
      if (!still_dirty) {
        done.emplace_back(id, part.cs);
        continue;
      }
      bool const ready = std::all_of(part.chunks.begin(), part.chunks.end(), [&](Chunk_io* chunk) {
        return !chunk->dirty_at(part.cs) || chunk->opened_at(part.cs);
      });
      if (!ready || !link_of(part.cs).is_up()) continue;
      std::erase_if(part.chunks, [&](Chunk_io* chunk) { return !chunk->dirty_at(part.cs); });
      for (Chunk_io* chunk : part.chunks) chunk->flushed_at(part.cs);
      send_flush_part(id, part);
    }
  for (auto const& [id, cs] : done) finish_part(id, cs);
  if (!done.empty()) end_of_event();
}

/// The servers that flushes wait for although their peers have long answered.
void File_volume::drop_slow_servers() {
  for (auto& [_, flush] : flushes_)
    for (Flush_part const& part : flush.parts)
      if (part.sent && link_of(part.cs).latency().is_slow())
        for (Chunk_io* chunk : part.chunks) chunk->held_up_by(part.cs);
}

void File_volume::finish_part(std::uint64_t id, Cs_id cs) {
  auto const flush = flushes_.find(id);
  if (flush == flushes_.end()) return;
  for (Flush_part const& part : flush->second.parts)
    if (part.cs == cs)
      for (Chunk_io* chunk : part.chunks) chunk->flush_answered_at(cs);
  std::erase_if(flush->second.parts, [&](Flush_part const& part) { return part.cs == cs; });
  if (flush->second.parts.empty()) answer_flushes();
}

// In their order: what an earlier one under way covers is no longer dirty, but not yet durable.
void File_volume::answer_flushes() {
  while (!flushes_.empty()) {
    auto const next =
        PS_MUTANT(answer_a_flush_before_an_earlier_one)
            ? std::find_if(flushes_.begin(), flushes_.end(),
                           [](auto const& flush) { return flush.second.parts.empty(); })
            : flushes_.begin();
    if (next == flushes_.end() || !next->second.parts.empty()) return;
    auto node = flushes_.extract(next);
    Errc const error = node.mapped().error;
    if (error == Errc::io_error)
      for (auto& [_, later] : flushes_)
        if (later.error == Errc::ok) later.error = error;
    if (error == Errc::ok && cached_ != nullptr) cached_->guard.flushed(node.mapped().changes);
    answer_later([done = std::move(node.mapped().done), error] {
      if (error != Errc::ok) return done(make_error_code(error));
      done(success());
    });
  }
}

}  // namespace pstorage::client
