// Recovery of the metadata log at start: finds the segments, replays whole frames, cuts the torn
// tail, refuses to start when something durable is damaged.
#include <algorithm>
#include <utility>

#include "core/assert.h"
#include "mds/log/segment.h"
#include "mds/log/single_log.h"

namespace pstorage::mds {
namespace {

constexpr std::uint64_t segment_bytes_max = 1u << 30;

bool is_zero(Bytes bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

/// Is there a whole frame anywhere behind `at`? It could only have been written after the frame at
/// `at` was durable.
bool has_frame_behind(std::uint64_t salt, Bytes content, std::uint64_t at) {
  std::vector<Committed_entry> ignored;
  for (auto next = at + frame_alignment; next < content.size(); next += frame_alignment) {
    if (decode_frame(salt, content.subspan(next), ignored).has_value()) return true;
  }
  return false;
}

bool has_frame_magic(Bytes content) {
  for (std::uint64_t at = frame_alignment; at < content.size(); at += frame_alignment) {
    if (is_frame_magic(content.subspan(at))) return true;
  }
  return false;
}

Failure damaged(std::uint64_t sequence, std::string const& what) {
  return failure(Errc::corrupt,
                 "the metadata log is damaged: " + segment_name(sequence) + ": " + what +
                     "; nothing was changed. Restore this repository from another metadata "
                     "server or a copy");
}

/// Opens a segment and reads all of it.
Outcome<std::unique_ptr<File>> read_segment(Disk& disk, std::uint64_t sequence,
                                            std::vector<std::byte>& content) {
  auto opened = disk.open(segment_name(sequence), {});
  if (!opened.has_value()) return damaged(sequence, opened.error().message());
  auto file = std::move(opened).value();
  auto const size = file->size();
  if (!size.has_value()) return damaged(sequence, size.error().message());
  if (size.value() > segment_bytes_max) return damaged(sequence, "it is too large for a segment");
  content.resize(size.value());
  auto const read = file->read(0, content);
  if (!read.has_value()) return damaged(sequence, "cannot be read: " + read.error().message());
  return file;
}

}  // namespace

Outcome<void> Single_log::recover(std::uint64_t applied) {
  auto found = contiguous_segments();
  if (!found.has_value()) return std::move(found).error();
  auto& sequences = found.value();
  std::uint64_t next_index = 0;  // 0: not known before the first frame
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    bool const is_last = i + 1 == sequences.size();
    PS_CHECK(load_segment(sequences[i], is_last, applied, next_index));
  }
  if (next_index == 0 && applied != 0) {
    return failure(Errc::corrupt, "the metadata log is empty, but the database has applied entry " +
                                      std::to_string(applied) +
                                      ": the directory log/ is not the one of this repository");
  }
  if (next_index != 0 && next_index - 1 < applied) {
    return failure(Errc::corrupt,
                   "the metadata log ends at entry " + std::to_string(next_index - 1) +
                       ", but the database has applied entry " + std::to_string(applied) +
                       ": the log has lost durable entries; restore this repository");
  }
  for (auto const sequence : unused_) (void)disk_.remove(segment_name(sequence));
  unused_.clear();
  committed_ = next_index == 0 ? 0 : next_index - 1;
  if (!current_.file) return create_first_segment();
  current_.last_index = committed_;
  return cut_tail();
}

Outcome<std::vector<std::uint64_t>> Single_log::contiguous_segments() {
  if (!disk_.exists("log")) {
    auto const made = disk_.make_directory("log");
    auto const synced = made.has_value() ? disk_.sync_directory("") : made;
    if (!synced.has_value()) {
      return failure(synced.error(), "cannot make the directory log/: " + synced.error().message());
    }
  }
  auto names = disk_.list("log");
  if (!names.has_value()) {
    return failure(names.error(), "cannot read the directory log/: " + names.error().message());
  }
  std::vector<std::uint64_t> sequences;
  for (auto const& name : names.value()) {
    if (auto const sequence = segment_sequence(name); sequence != 0) sequences.push_back(sequence);
  }
  std::sort(sequences.begin(), sequences.end());
  // Removals of old segments may have become durable in any order: what is before a gap was on its
  // way out. If it was not, the check against the applied index finds out.
  for (std::size_t i = sequences.size(); i-- > 1;) {
    if (sequences[i - 1] + 1 == sequences[i]) continue;
    for (std::size_t old = 0; old < i; ++old) (void)disk_.remove(segment_name(sequences[old]));
    sequences.erase(sequences.begin(), sequences.begin() + static_cast<std::ptrdiff_t>(i));
    break;
  }
  return sequences;
}

Outcome<void> Single_log::load_segment(std::uint64_t sequence, bool is_last, std::uint64_t applied,
                                       std::uint64_t& next_index) {
  std::vector<std::byte> content;
  auto opened = read_segment(disk_, sequence, content);
  if (!opened.has_value()) return std::move(opened).error();
  auto file = std::move(opened).value();
  auto const header = decode_segment_header(content);
  if (!header.has_value() || header.value().sequence != sequence ||
      header.value().bytes != content.size()) {
    // The youngest may have been cut off while it was pre-written: then nothing is in it yet, and
    // the log goes on in the one before.
    bool const unborn =
        is_last && !(salt_ == 0 ? has_frame_magic(content) : has_frame_behind(salt_, content, 0));
    if (!unborn) return damaged(sequence, "its header does not match its checksum");
    file.reset();
    (void)disk_.remove(segment_name(sequence));
    return success();
  }
  if (salt_ == 0) salt_ = header.value().salt;
  if (header.value().salt != salt_) return damaged(sequence, "it belongs to another log");

  std::vector<Committed_entry> entries;
  auto at = load_frames(sequence, content, applied, next_index, entries);
  if (!at.has_value()) return std::move(at).error();
  bool const has_frames = at.value() > frame_alignment;
  if (!has_frames && current_.file) {
    // Prepared ahead, and never used or its first frame was lost before it was durable.
    unused_.push_back(sequence);
    return success();
  }
  if (has_frames && !unused_.empty()) {
    return damaged(unused_.front(), "it is empty but not the last one");
  }
  if (current_.file) closed_[current_.sequence] = current_.last_index;
  current_ = {sequence, content.size(), at.value(), next_index == 0 ? 0 : next_index - 1,
              std::move(file)};
  if (!entries.empty()) listener_->on_committed(std::move(entries));
  return success();
}

/// Decodes the frames of a segment; returns where they end.
Outcome<std::uint64_t> Single_log::load_frames(std::uint64_t sequence, Bytes content,
                                               std::uint64_t applied, std::uint64_t& next_index,
                                               std::vector<Committed_entry>& entries) {
  std::uint64_t at = frame_alignment;
  while (at < content.size()) {
    auto const frame = decode_frame(salt_, content.subspan(at), entries);
    if (!frame.has_value()) break;
    auto const first = frame.value().first_index;
    if (next_index == 0) {
      if (first > applied + 1) {
        return damaged(sequence, "the log begins at entry " + std::to_string(first) +
                                     ", the database has applied only " + std::to_string(applied));
      }
      next_index = first;
    }
    if (first != next_index) {
      return damaged(sequence, "its entry " + std::to_string(first) + " should be " +
                                   std::to_string(next_index) + ": entries are missing");
    }
    next_index += frame.value().count;
    at += frame_bytes(frame.value().payload_bytes);
    std::erase_if(entries, [applied](auto const& entry) { return entry.index <= applied; });
  }
  if (at < content.size() && has_frame_behind(salt_, content, at)) {
    return damaged(sequence, "entry " + std::to_string(std::max<std::uint64_t>(next_index, 1)) +
                                 " does not match its checksum and later ones are there");
  }
  return at;
}

Outcome<void> Single_log::cut_tail() {
  std::vector<std::byte> content(current_.bytes - current_.used);
  auto const read = current_.file->read(current_.used, content);
  if (!read.has_value()) return damaged(current_.sequence, read.error().message());
  if (is_zero(content)) return success();
  log_.warn("cutting a torn entry off the metadata log",
            {{"segment", current_.sequence}, {"offset", current_.used}});
  // Zeros, so that pieces of the torn frame never stand behind a later one.
  std::fill(content.begin(), content.end(), std::byte{0});
  auto const written = current_.file->write(current_.used, content);
  auto const synced = written.has_value() ? current_.file->sync() : written;
  if (!synced.has_value()) {
    return failure(synced.error(),
                   "cannot cut the torn end of the metadata log: " + synced.error().message());
  }
  return success();
}

}  // namespace pstorage::mds
