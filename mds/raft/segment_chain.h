// The files of the durable Raft log: pre-written segments, one always prepared ahead.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/env/disk.h"
#include "core/log.h"

namespace pstorage::mds::raft {

/// Appends go to the current segment; the next one is made durable before it is needed. Thread: the
/// owner's loop.
class Segment_chain {
 public:
  struct Hooks {
    std::function<void()> on_room;                  // a next segment is there
    std::function<void(Failure const&)> on_failed;  // not for a full disk
  };
  Segment_chain(Disk& disk, Log& log, std::uint64_t segment_bytes, Hooks hooks);

  /// What start-up finds, oldest first: sequence and content of the file.
  struct Found {
    std::uint64_t sequence = 0;
    std::vector<std::byte> content;
  };
  /// Errors: with a line for a person.
  Outcome<std::vector<Found>> find();
  /// Makes the directory and the very first segment, durable.
  Outcome<void> create_first(std::uint64_t salt);
  /// Continues in segment `sequence`, whose frames end at `used`; what is behind becomes zeros, and
  /// all of the segment durable. `oldest`: first segment that is there. Removes later ones.
  Outcome<void> resume(std::uint64_t salt, std::uint64_t oldest, std::uint64_t newest,
                       std::uint64_t sequence, std::uint64_t used);

  std::uint64_t room() const { return current_.bytes - current_.used; }
  /// Does an empty segment take a frame of this size?
  bool fits_a_segment(std::uint64_t frame_bytes) const;
  std::uint64_t sequence() const { return current_.sequence; }
  std::uint64_t oldest() const { return oldest_; }
  bool has_next() const { return is_next_ready_; }
  /// The disk had no room for another segment.
  bool is_full() const { return is_full_; }

  void switch_to_next();
  /// At start only: makes the next segment, durable, and switches to it. Blocking.
  Outcome<void> extend();
  /// Starts to prepare the next segment, unless it is there, under way, or the disk is known full.
  void prepare_next();
  /// Every second or so: tries again after the disk was full.
  void retry();
  Result<void> append(Bytes frame);
  File& file() { return *current_.file; }
  /// Removes the oldest segment.
  Result<void> remove_oldest();

 private:
  struct Segment {
    std::uint64_t sequence = 0;
    std::uint64_t bytes = 0;
    std::uint64_t used = 0;
    std::unique_ptr<File> file;
  };
  Result<std::unique_ptr<File>> write_empty(std::uint64_t sequence);
  Outcome<void> create_current(std::uint64_t sequence);
  void start_next();
  void next_synced();
  void next_failed(std::error_code code);

  Disk& disk_;
  Log& log_;
  std::uint64_t const segment_bytes_;
  Hooks const hooks_;
  std::uint64_t salt_ = 0;
  std::uint64_t oldest_ = 1;
  Segment current_;
  Segment next_;
  bool is_next_ready_ = false;
  bool is_next_under_way_ = false;
  bool is_full_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for completions of the Disk
};

}  // namespace pstorage::mds::raft
