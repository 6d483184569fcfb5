#include "mds/log/single_log.h"

#include <algorithm>
#include <utility>

#include "core/assert.h"
#include "mds/log/segment.h"

namespace pstorage::mds {
namespace {

constexpr std::size_t prewrite_piece_bytes = 256u << 10;

}  // namespace

Single_log::Single_log(Disk& disk, Random& random, Log& log, Single_log_options options)
    : disk_(disk), random_(random), log_(log), options_(options) {
  PS_ASSERT(options_.segment_bytes % frame_alignment == 0);
  PS_ASSERT(options_.segment_bytes >= 2 * frame_alignment);
}

Single_log::~Single_log() = default;

Outcome<void> Single_log::start(std::uint64_t applied, Log_listener& listener) {
  PS_ASSERT(listener_ == nullptr);
  listener_ = &listener;
  auto started = recover(applied);
  if (!started.has_value()) {
    listener_ = nullptr;
    return started;
  }
  prepare_next();
  return success();
}

Outcome<std::uint64_t> Single_log::propose(std::string entry) {
  if (failed_ || listener_ == nullptr) return failure(Errc::closed, "the metadata log is closed");
  auto const payload = pending_payload_ + 4 + entry.size();
  auto const frame_max = options_.segment_bytes - frame_alignment;
  if (entry.size() > entry_bytes_max || frame_bytes(4 + entry.size()) > frame_max) {
    return failure(Errc::too_large, "the command is larger than an entry of the metadata log");
  }
  bool const fits = frame_bytes(payload) <= current_.bytes - current_.used - frame_.size();
  if (!fits && full_) {
    return failure(Errc::no_space,
                   "the disk of the metadata server is full: free space there, then try again");
  }
  if (frame_bytes(payload) > frame_max) {
    return failure(Errc::unavailable, "too many commands are waiting for the metadata log");
  }
  pending_payload_ = payload;
  pending_.push_back(std::move(entry));
  return committed_ + in_flight_.size() + pending_.size();
}

void Single_log::flush() {
  if (!failed_ && !pending_.empty() && in_flight_.empty()) write_batch();
}

void Single_log::tick() {
  if (failed_ || listener_ == nullptr) return;
  if (!next_ready_ && !next_under_way_) {
    // Do not fill the last bytes of a full disk once a second.
    auto const space = disk_.space();
    if (!full_ || !space.has_value() || space.value().free_bytes > 2 * options_.segment_bytes) {
      prepare_next();
    }
  }
  flush();
}

void Single_log::read_barrier(Barrier_done done) {
  // With one member nothing can be acknowledged by anybody else, and we acknowledge only what is
  // applied: the state as it stands is fresh.
  done(std::uint64_t{0});
}

void Single_log::cut(std::uint64_t index) {
  // The last entry stays whatever happens: an empty log beside a database with entries is damage.
  bool const is_current_empty = current_.used == frame_alignment;
  while (closed_.size() > (is_current_empty ? 1u : 0u) && closed_.begin()->second < index) {
    auto const removed = disk_.remove(segment_name(closed_.begin()->first));
    if (!removed.has_value()) {
      // It only takes space; the next start finds it again and replays nothing of it.
      log_.warn("cannot remove an old log segment", {{"error", removed.error().message()}});
      return;
    }
    closed_.erase(closed_.begin());
  }
}

void Single_log::write_batch() {
  if (frame_bytes(pending_payload_) > current_.bytes - current_.used) {
    if (!next_ready_) {
      if (!next_under_way_ && !full_) prepare_next();
      return;
    }
    switch_segment();
  }
  in_flight_ = std::exchange(pending_, {});
  pending_payload_ = 0;
  frame_ = encode_frame(salt_, committed_ + 1, term(), in_flight_);
  auto const written = current_.file->write(current_.used, frame_);
  if (!written.has_value()) {
    fail(failure(written.error(), "cannot write the metadata log: " + written.error().message()));
    return;
  }
  current_.file->sync_async([this](Result<void> result) { batch_synced(result); });
}

void Single_log::batch_synced(Result<void> result) {
  if (failed_) return;
  if (!result.has_value()) {
    fail(failure(result.error(), "cannot sync the metadata log: " + result.error().message()));
    return;
  }
  current_.used += frame_.size();
  frame_.clear();
  std::vector<Committed_entry> entries;
  entries.reserve(in_flight_.size());
  for (auto& bytes : in_flight_) entries.push_back({++committed_, std::move(bytes)});
  in_flight_.clear();
  current_.last_index = committed_;
  ++commits_;
  if (current_.used > current_.bytes / 2 && !next_ready_ && !next_under_way_ && !full_) {
    prepare_next();
  }
  if (!pending_.empty() && !failed_) write_batch();  // before applying: the disk works meanwhile
  listener_->on_committed(std::move(entries));
}

void Single_log::switch_segment() {
  PS_ASSERT(next_ready_);
  closed_[current_.sequence] = current_.last_index;
  current_ = std::move(next_);
  next_ = {};
  next_ready_ = false;
  prepare_next();
}

Result<std::unique_ptr<File>> Single_log::write_empty_segment(std::uint64_t sequence) {
  auto const name = segment_name(sequence);
  PS_TRY(auto file, disk_.open(name, {.create = true, .exclusive = false}));
  // Pre-written, not only allocated: converting unwritten extents would make each append a commit
  // of the file system's journal.
  auto const header = encode_segment_header({salt_, sequence, options_.segment_bytes});
  PS_CHECK(file->write(0, header));
  std::vector<std::byte> const zeros(prewrite_piece_bytes);
  PS_CHECK(file->truncate(options_.segment_bytes));  // a longer left-over of an older start
  std::uint64_t at = header.size();
  while (at < options_.segment_bytes) {
    auto const piece = std::min<std::uint64_t>(zeros.size(), options_.segment_bytes - at);
    PS_CHECK(file->write(at, Bytes(zeros).first(piece)));
    at += piece;
  }
  return file;
}

Outcome<void> Single_log::create_first_segment() {
  salt_ = random_.next();
  std::uint64_t const sequence = 1;
  auto file = write_empty_segment(sequence);
  if (!file.has_value()) {
    return failure(file.error(), "cannot create the metadata log: " + file.error().message());
  }
  auto const synced = file.value()->sync();
  auto const listed = disk_.sync_directory("log");
  if (!synced.has_value() || !listed.has_value()) {
    return failure(Errc::io_error, "cannot sync the metadata log: disk error");
  }
  current_ = {sequence, options_.segment_bytes, frame_alignment, 0, std::move(file).value()};
  return success();
}

void Single_log::prepare_next() {
  auto const sequence = current_.sequence + 1;
  auto file = write_empty_segment(sequence);
  if (!file.has_value()) {
    next_failed(failure(file.error(), file.error().message()));
    return;
  }
  next_ = {sequence, options_.segment_bytes, frame_alignment, 0, std::move(file).value()};
  next_under_way_ = true;
  next_.file->sync_async([this](Result<void> synced) {
    if (!synced.has_value()) {
      next_failed(failure(synced.error(), synced.error().message()));
      return;
    }
    disk_.sync_directory_async("log", [this, alive = std::weak_ptr(alive_)](Result<void> listed) {
      if (alive.expired()) return;
      next_under_way_ = false;
      if (!listed.has_value()) {
        next_failed(failure(listed.error(), listed.error().message()));
        return;
      }
      next_ready_ = true;
      if (std::exchange(full_, false)) log_.info("the metadata log has room again");
      flush();
    });
  });
}

void Single_log::next_failed(Failure const& why) {
  next_under_way_ = false;
  if (errc_of(why.code) != Errc::no_space) {
    fail(failure(why.code, "cannot extend the metadata log: " + why.text));
    return;
  }
  next_ = {};
  (void)disk_.remove(segment_name(current_.sequence + 1));  // gives its space back; may not exist
  if (!std::exchange(full_, true)) {
    log_.error("no space for the metadata log: commands will be refused until there is",
               {{"error", why.text}});
  }
}

void Single_log::fail(Failure const& why) {
  if (std::exchange(failed_, true)) return;
  listener_->on_log_failed(why);
}

}  // namespace pstorage::mds
