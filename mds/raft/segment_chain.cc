#include "mds/raft/segment_chain.h"

#include <algorithm>
#include <utility>

#include "core/assert.h"
#include "mds/raft/segment.h"

namespace pstorage::mds::raft {
namespace {

constexpr std::size_t piece_bytes = 256u << 10;
constexpr std::uint64_t segment_bytes_max = 1u << 30;
constexpr char const* folder = "raft";

Failure cannot(std::string const& what, std::error_code code) {
  return failure(code, "cannot " + what + ": " + code.message());
}

Result<void> write_zeros(File& file, std::uint64_t from, std::uint64_t to) {
  std::vector<std::byte> const zeros(std::min<std::uint64_t>(piece_bytes, to - from));
  while (from < to) {
    auto const piece = std::min<std::uint64_t>(zeros.size(), to - from);
    PS_CHECK(file.write(from, Bytes(zeros).first(piece)));
    from += piece;
  }
  return success();
}

}  // namespace

Segment_chain::Segment_chain(Disk& disk, Log& log, std::uint64_t segment_bytes, Hooks hooks)
    : disk_(disk), log_(log), segment_bytes_(segment_bytes), hooks_(std::move(hooks)) {
  PS_ASSERT(segment_bytes_ % frame_alignment == 0 && segment_bytes_ >= 4 * frame_alignment);
}

bool Segment_chain::fits_a_segment(std::uint64_t frame_bytes) const {
  return frame_bytes <= segment_bytes_ - frame_alignment;
}

Outcome<std::vector<Segment_chain::Found>> Segment_chain::find() {
  if (!disk_.exists(folder)) return std::vector<Found>();
  auto const names = disk_.list(folder);
  if (!names.has_value()) return cannot("read the directory raft/", names.error());
  std::vector<std::uint64_t> sequences;
  for (auto const& name : names.value()) {
    if (auto const sequence = segment_sequence(name); sequence != 0) sequences.push_back(sequence);
  }
  std::sort(sequences.begin(), sequences.end());
  // Removals may have become durable in any order: what is before a gap was on its way out.
  for (std::size_t i = sequences.size(); i-- > 1;) {
    if (sequences[i - 1] + 1 == sequences[i]) continue;
    for (std::size_t old = 0; old < i; ++old) (void)disk_.remove(segment_name(sequences[old]));
    sequences.erase(sequences.begin(), sequences.begin() + static_cast<std::ptrdiff_t>(i));
    break;
  }
  std::vector<Found> found;
  for (auto const sequence : sequences) {
    auto const name = segment_name(sequence);
    auto const file = disk_.open(name, {});
    if (!file.has_value()) return cannot("open " + name, file.error());
    auto const size = file.value()->size();
    if (!size.has_value()) return cannot("read " + name, size.error());
    if (size.value() > segment_bytes_max) {
      return failure(Errc::corrupt, name + " is too large for a segment of the metadata log");
    }
    Found segment{sequence, std::vector<std::byte>(size.value())};
    auto const read = file.value()->read(0, segment.content);
    if (!read.has_value()) return cannot("read " + name, read.error());
    found.push_back(std::move(segment));
  }
  return found;
}

Outcome<void> Segment_chain::create_first(std::uint64_t salt) {
  salt_ = salt;
  oldest_ = 1;
  if (!disk_.exists(folder)) {
    auto const made = disk_.make_directory(folder);
    auto const synced = made.has_value() ? disk_.sync_directory("") : made;
    if (!synced.has_value()) return cannot("make the directory raft/", synced.error());
  }
  return create_current(1);
}

Outcome<void> Segment_chain::extend() { return create_current(current_.sequence + 1); }

Outcome<void> Segment_chain::create_current(std::uint64_t sequence) {
  auto file = write_empty(sequence);
  if (!file.has_value()) return cannot("create the metadata log", file.error());
  auto synced = file.value()->sync();
  if (synced.has_value()) synced = disk_.sync_directory(folder);
  if (!synced.has_value()) return cannot("sync the metadata log", synced.error());
  current_ = {sequence, segment_bytes_, frame_alignment, std::move(file).value()};
  return success();
}

Outcome<void> Segment_chain::resume(std::uint64_t salt, std::uint64_t oldest, std::uint64_t newest,
                                    std::uint64_t sequence, std::uint64_t used) {
  salt_ = salt;
  oldest_ = oldest;
  for (auto later = newest; later > sequence; --later) (void)disk_.remove(segment_name(later));
  auto file = disk_.open(segment_name(sequence), {});
  if (!file.has_value()) return cannot("open " + segment_name(sequence), file.error());
  auto const size = file.value()->size();
  if (!size.has_value()) return cannot("read " + segment_name(sequence), size.error());
  current_ = {sequence, size.value(), used, std::move(file).value()};
  // Zeros, so that pieces of a torn frame never stand behind a later one. And what the page cache
  // survived the process with is not durable yet.
  auto done = write_zeros(*current_.file, used, current_.bytes);
  if (done.has_value()) done = current_.file->sync();
  if (!done.has_value()) return cannot("cut the torn end of the metadata log", done.error());
  return success();
}

Result<std::unique_ptr<File>> Segment_chain::write_empty(std::uint64_t sequence) {
  PS_TRY(auto file, disk_.open(segment_name(sequence), {.create = true, .exclusive = false}));
  auto const header = encode_segment_header({salt_, sequence, segment_bytes_});
  // Pre-written, not only allocated: converting unwritten extents would make each append a commit
  // of the file system's journal.
  PS_CHECK(file->write(0, header));
  PS_CHECK(file->truncate(segment_bytes_));
  PS_CHECK(write_zeros(*file, header.size(), segment_bytes_));
  return file;
}

void Segment_chain::prepare_next() {
  if (!is_next_ready_ && !is_next_under_way_ && !is_full_) start_next();
}

void Segment_chain::retry() {
  if (!is_full_ || is_next_ready_ || is_next_under_way_) return;
  // Do not fill the last bytes of a full disk once a second.
  auto const space = disk_.space();
  if (!space.has_value() || space.value().free_bytes > 2 * segment_bytes_) start_next();
}

void Segment_chain::start_next() {
  auto const sequence = current_.sequence + 1;
  auto file = write_empty(sequence);
  if (!file.has_value()) return next_failed(file.error());
  next_ = {sequence, segment_bytes_, frame_alignment, std::move(file).value()};
  is_next_under_way_ = true;
  next_.file->sync_async([this](Result<void> synced) {
    if (!synced.has_value()) return next_failed(synced.error());
    next_synced();
  });
}

void Segment_chain::next_synced() {
  disk_.sync_directory_async(folder, [this, alive = std::weak_ptr(alive_)](Result<void> listed) {
    if (alive.expired()) return;
    is_next_under_way_ = false;
    if (!listed.has_value()) return next_failed(listed.error());
    is_next_ready_ = true;
    if (std::exchange(is_full_, false)) log_.info("the metadata log has room again");
    hooks_.on_room();
  });
}

void Segment_chain::next_failed(std::error_code code) {
  is_next_under_way_ = false;
  next_ = {};
  if (errc_of(code) != Errc::no_space) {
    return hooks_.on_failed(cannot("extend the metadata log", code));
  }
  (void)disk_.remove(segment_name(current_.sequence + 1));  // gives its space back; may not exist
  if (!std::exchange(is_full_, true)) {
    log_.error("no space for the metadata log: commands will be refused until there is",
               {{"error", code.message()}});
  }
}

void Segment_chain::switch_to_next() {
  PS_ASSERT(is_next_ready_);
  current_ = std::exchange(next_, {});
  is_next_ready_ = false;
}

Result<void> Segment_chain::append(Bytes frame) {
  PS_ASSERT(frame.size() <= room());
  PS_CHECK(current_.file->write(current_.used, frame));
  current_.used += frame.size();
  return success();
}

Result<void> Segment_chain::remove_oldest() {
  PS_ASSERT(oldest_ < current_.sequence);
  PS_CHECK(disk_.remove(segment_name(oldest_)));
  ++oldest_;
  return success();
}

}  // namespace pstorage::mds::raft
