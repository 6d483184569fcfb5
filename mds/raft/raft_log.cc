#include "mds/raft/raft_log.h"

#include <algorithm>
#include <utility>

#include "core/assert.h"
#include "core/mutant.h"
#include "mds/raft/segment.h"

namespace pstorage::mds::raft {

Raft_log::Raft_log(Disk& disk, Random& random, Log& log, Raft_log_options options)
    : random_(random),
      log_(log),
      options_(std::move(options)),
      chain_(disk, log, options_.segment_bytes,
             {.on_room = [this] { flush(); },
              .on_failed = [this](Failure const& why) { fail(why); }}) {}

bool Raft_log::fits(std::size_t entry_bytes) const {
  // A frame of its own in a new segment, with the largest base.
  Log_entry entry;
  auto const base = payload_of(shape_.end());
  return entry_bytes <= entry_bytes_max &&
         chain_.fits_a_segment(raft_frame_bytes(entry_bytes + payload_of(entry) + base));
}

bool Raft_log::has_room(std::uint64_t bytes) const {
  if (!chain_.is_full()) return true;
  auto const needed = raft_frame_bytes(bytes + queued_bytes_) + options_.reserve_bytes;
  return needed <= chain_.room();
}

void Raft_log::write(Ready const& ready) {
  PS_ASSERT(ready.token != 0 && listener_ != nullptr);
  if (has_failed_) return;
  queue(ready);
}

/// A Ready becomes one item, or several if its entries do not fit one frame: the parts before the
/// last are as good as a shorter message.
void Raft_log::queue(Ready const& ready) {
  auto const piece_max = std::min<std::uint64_t>(options_.segment_bytes / 4, 4u << 20);
  Item item{.token = 0,
            .must_sync = ready.must_sync,
            .hard = ready.hard,
            .install = ready.install,
            .first_index = ready.truncate_from,
            .entries = {},
            .payload_bytes = ready.install ? payload_of(*ready.install) : 0};
  for (auto const& entry : ready.entries) {
    auto const bytes = payload_of(entry);
    if (!item.entries.empty() && item.payload_bytes + bytes > piece_max) {
      queued_bytes_ += item.payload_bytes;
      Item rest{.token = 0,
                .must_sync = true,
                .hard = ready.hard,
                .install = {},
                .first_index = 0,
                .entries = {},
                .payload_bytes = 0};
      items_.push_back(std::exchange(item, std::move(rest)));
    }
    if (item.first_index == 0) item.first_index = entry.index;
    item.entries.push_back(entry);
    item.payload_bytes += bytes;
  }
  item.token = ready.token;
  queued_bytes_ += item.payload_bytes;
  items_.push_back(std::move(item));
}

void Raft_log::flush() {
  if (has_failed_) return;
  chain_.prepare_next();
  if (is_syncing_ || items_.empty() || !make_room() || !write_batch()) return;
  is_syncing_ = true;
  if (PS_MUTANT(report_before_the_sync)) {
    auto const token = std::exchange(batch_token_, 0);
    if (token != 0) listener_->on_persisted(token);
  }
  chain_.file().sync_async([this](Result<void> result) { batch_synced(result); });
}

Outcome<void> Raft_log::flush_blocking() {
  while (!items_.empty()) {
    if (!is_room_for(items_.front())) {
      PS_CHECK(chain_.extend());
      begin_segment();
    }
    if (!write_batch()) return failure(Errc::io_error, "cannot write the metadata log");
    auto const synced = chain_.file().sync();
    if (!synced.has_value()) {
      return failure(synced.error(), "cannot sync the metadata log: " + synced.error().message());
    }
    auto const token = finish_batch();
    if (token != 0) listener_->on_persisted(token);
  }
  return success();
}

bool Raft_log::is_room_for(Item const& item) const {
  auto const needed = raft_frame_bytes(item.payload_bytes + payload_of(shape_.end()));
  PS_ASSERT(chain_.fits_a_segment(needed));
  return needed <= chain_.room();
}

void Raft_log::begin_segment() {
  is_segment_new_ = true;
  segments_.push_back({.base = shape_.last_index()});
}

/// Is there room for the oldest item? Otherwise the next segment is on its way, or the disk full.
bool Raft_log::make_room() {
  if (is_room_for(items_.front())) return true;
  if (!chain_.has_next()) return false;
  chain_.switch_to_next();
  begin_segment();
  chain_.prepare_next();
  return true;
}

/// The oldest items, as many as fit: one frame, so that a torn write is never in the middle.
Raft_frame Raft_log::next_frame() {
  Raft_frame frame;
  frame.member = member_;
  frame.hard = last_hard_;
  if (is_segment_new_ && !PS_MUTANT(a_segment_without_its_base)) frame.base = shape_.end();
  std::size_t payload = payload_of(shape_.end());  // perhaps unused
  bool is_first = true;
  while (!items_.empty()) {
    auto& item = items_.front();
    if (!is_first && raft_frame_bytes(payload + item.payload_bytes) > chain_.room()) break;
    // A reset carries a base of its own: the segment's must be in a frame before it.
    if (item.install && (!is_first || is_segment_new_)) break;
    is_first = false;
    payload += item.payload_bytes;
    queued_bytes_ -= item.payload_bytes;
    merge(frame, item);
    items_.pop_front();
  }
  return frame;
}

void Raft_log::merge(Raft_frame& frame, Item& item) {
  frame.hard = item.hard;
  if (item.token != 0) batch_token_ = item.token;
  if (item.install) {
    frame.base = std::move(item.install);
    frame.is_reset = true;
  }
  if (item.first_index == 0) return;
  while (!frame.entries.empty() && frame.entries.back().index >= item.first_index) {
    frame.entries.pop_back();
  }
  if (frame.first_index == 0 || item.first_index < frame.first_index) {
    frame.first_index = item.first_index;
  }
  std::move(item.entries.begin(), item.entries.end(), std::back_inserter(frame.entries));
}

bool Raft_log::write_batch() {
  auto const frame = next_frame();
  auto const written = write_frame(frame);
  if (!written.has_value()) {
    fail(failure(written.error(), "cannot write the metadata log: " + written.error().message()));
    return false;
  }
  return true;
}

Result<void> Raft_log::write_frame(Raft_frame const& given) {
  auto frame = given;
  note_shape(frame);
  frame.sequence = ++last_sequence_;
  frame.last_index = shape_.last_index();
  if (PS_MUTANT(damage_is_forgotten)) frame.hard.repair_until = frame.hard.repair_term = 0;
  is_segment_new_ = false;
  last_hard_ = frame.hard;
  return chain_.append(encode_raft_frame(salt_, frame));
}

void Raft_log::note_shape(Raft_frame const& frame) {
  if (frame.is_reset) shape_.reset(*frame.base);
  if (frame.first_index == 0) return;
  shape_.truncate_from(frame.first_index);
  for (auto const& entry : frame.entries) shape_.append(entry);
  segments_.back().lowest = std::min(segments_.back().lowest, frame.first_index);
}

void Raft_log::batch_synced(Result<void> result) {
  if (has_failed_) return;
  is_syncing_ = false;
  if (!result.has_value()) {
    fail(failure(result.error(), "cannot sync the metadata log: " + result.error().message()));
    return;
  }
  auto const token = finish_batch();
  flush();  // before anything is applied: the disk works meanwhile
  if (token != 0) listener_->on_persisted(token);
}

/// The batch is durable. Returns the newest token that is, with those that only waited behind it.
std::uint64_t Raft_log::finish_batch() {
  ++commits_;
  segments_.back().is_durable = true;
  auto token = std::exchange(batch_token_, 0);
  while (!items_.empty() && !items_.front().must_sync) {
    token = items_.front().token;
    items_.pop_front();
  }
  return token;
}

void Raft_log::cut(std::uint64_t index) {
  // A segment can be the first one if its frames never reach below its base.
  std::size_t first = 0;
  auto lowest = ~std::uint64_t{0};
  for (auto i = segments_.size(); i-- > 0 && first == 0;) {
    lowest = std::min(lowest, segments_[i].lowest);
    auto const base = segments_[i].base;
    bool const is_durable = segments_[i].is_durable || PS_MUTANT(cut_before_the_base_is_durable);
    if (is_durable && base <= index && lowest > base) first = i;
  }
  for (; first > 0; --first) {
    auto const removed = chain_.remove_oldest();
    if (!removed.has_value()) {
      // It only takes space; the next start finds it again.
      log_.warn("cannot remove an old log segment", {{"error", removed.error().message()}});
      return;
    }
    segments_.pop_front();
  }
}

void Raft_log::fail(Failure const& why) {
  if (std::exchange(has_failed_, true)) return;
  listener_->on_raft_log_failed(why);
}

}  // namespace pstorage::mds::raft
