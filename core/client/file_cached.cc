// File_volume: content that a cache of this host has. It is used under a lease or share only, and
// what is read from it is confirmed like every answer that no CS has checked the epoch of.
#include <utility>

#include "core/client/file_volume.h"
#include "core/mutant.h"

namespace pstorage::client {

void File_volume::use_cache(Read_cache& cache, Epoch previous) {
  if (auto const key = cache.file_opened(file_, previous, epoch_); key != 0)
    cached_ = std::make_unique<Cached>(cache, key);
}

bool File_volume::is_cached(std::uint64_t offset, std::uint64_t length) const {
  return cached_ != nullptr && cached_->cache.has(cached_->key, offset, length);
}

void File_volume::read_cached(std::uint64_t offset, std::uint64_t length, Read_done done) {
  Request& request = new_request(Request_kind::read, offset, length);
  request.read_done = std::move(done);
  auto const read = cached_reads_.emplace_back(std::make_shared<Request*>(&request));
  cached_->cache.read(
      cached_->key, offset, length,
      [this, read, offset, length, alive = std::weak_ptr<bool>(alive_)](std::optional<Slice> data) {
        auto const token = alive.lock();
        if (token == nullptr || !*token || *read == nullptr) return;
        std::erase(cached_reads_, read);
        Request& waiting = **read;
        if (data)
          waiting.parts.push_back(*std::move(data));
        else
          submit_read(waiting, offset, length);
        submitted(waiting);
      });
}

/// At once, as all others: nobody waits for the disk before this volume may go.
void File_volume::abort_cached_reads(Errc why) {
  for (auto const& read : std::exchange(cached_reads_, {})) {
    Request& request = *std::exchange(*read, nullptr);
    request.error = why;
    submitted(request);
  }
}

void File_volume::note_read(Request& request, std::uint64_t offset, std::uint64_t length) {
  if (cached_ == nullptr) return;
  request.cached = {cached_->guard.read_begins(), offset, length};
}

/// Before it is sent to anybody.
void File_volume::note_change(Request& request, std::uint64_t offset, std::uint64_t length) {
  if (cached_ == nullptr || length == 0) return;
  request.cached = {cached_->guard.change_begins(offset, length), offset, length};
  if (!PS_MUTANT(cache_what_was_overtaken)) cached_->cache.forget(cached_->key, offset, length);
}

void File_volume::note_end(Request& request) {
  auto const noted = std::exchange(request.cached, {});
  if (cached_ == nullptr || noted.number == 0) return;
  if (request.kind != Request_kind::read) return cached_->guard.change_ended(noted.number);
  bool const is_true = cached_->guard.read_ended(noted.number, noted.offset, noted.length);
  if (is_true && request.error == Errc::ok)
    cached_->cache.fill(cached_->key, noted.offset, request.parts);
}

/// The servers have less than was written: whatever is cached may be what they lost.
void File_volume::distrust_cache() {
  if (cached_ != nullptr) cached_->cache.file_opened(file_, Epoch{}, epoch_);
  cached_.reset();
}

}  // namespace pstorage::client
