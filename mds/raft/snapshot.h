// Where snapshots of the state machine come from, and where they go.
#pragma once

#include <functional>
#include <memory>

#include "core/buffer.h"
#include "core/env/disk.h"

namespace pstorage::mds::raft {

/// Pieces in which a snapshot travels.
inline constexpr std::size_t snapshot_piece_bytes = 1u << 20;

/// A copy of the state machine that does not change any more. Thread: the owner's loop.
class Snapshot_reader {
 public:
  virtual ~Snapshot_reader() = default;
  /// Index of the last entry in it.
  virtual std::uint64_t index() const = 0;
  virtual std::uint64_t size_bytes() const = 0;
  using Read_done = std::function<void(Result<Slice>)>;
  /// Reads [offset, offset + length). `done` is never called from inside, nor after the reader was
  /// destroyed.
  virtual void read(std::uint64_t offset, std::size_t length, Read_done done) = 0;
};

class Snapshot_source {
 public:
  virtual ~Snapshot_source() = default;
  using Opened = std::function<void(Result<std::unique_ptr<Snapshot_reader>>)>;
  /// Copies the state machine as it is applied now, while it goes on. `done` may be called from
  /// inside.
  virtual void open(Opened done) = 0;
};

/// Receives a snapshot beside the state machine's file, then puts it in its place.
class Snapshot_sink {
 public:
  virtual ~Snapshot_sink() = default;
  /// Begins a new one; what is left of an earlier one is void.
  virtual Result<void> begin() = 0;
  virtual Result<void> write(std::uint64_t offset, Bytes bytes) = 0;
  /// Makes what was written durable, off the loop.
  virtual void sync(Disk_completion done) = 0;
  /// Replaces the state machine, durably: it stands at `index` when this returns. After a Failure
  /// the process must end.
  virtual Outcome<void> install(std::uint64_t index) = 0;
  virtual void abandon() = 0;
};

/// A snapshot that is a file of `disk`.
class File_snapshot_reader final : public Snapshot_reader {
 public:
  /// Errors: the system's.
  static Result<std::unique_ptr<Snapshot_reader>> open(Disk& disk, std::string const& name,
                                                       std::uint64_t index);
  std::uint64_t index() const override { return index_; }
  std::uint64_t size_bytes() const override { return size_; }
  void read(std::uint64_t offset, std::size_t length, Read_done done) override;

 private:
  File_snapshot_reader(std::unique_ptr<File> file, std::uint64_t index, std::uint64_t size)
      : file_(std::move(file)), index_(index), size_(size) {}
  std::unique_ptr<File> file_;
  std::uint64_t index_;
  std::uint64_t size_;
};

/// Writes to `name`.new, then renames it to `name`.
class File_snapshot_sink final : public Snapshot_sink {
 public:
  struct Hooks {
    std::function<void()> close_state;  // the file is about to be replaced
    std::function<Outcome<void>()> open_state;
  };
  /// `leftovers`: files beside `name` that belong to the old one (SQLite's write-ahead log).
  File_snapshot_sink(Disk& disk, std::string name, std::vector<std::string> leftovers, Hooks hooks)
      : disk_(disk),
        name_(std::move(name)),
        leftovers_(std::move(leftovers)),
        hooks_(std::move(hooks)) {}

  Result<void> begin() override;
  Result<void> write(std::uint64_t offset, Bytes bytes) override;
  void sync(Disk_completion done) override;
  Outcome<void> install(std::uint64_t index) override;
  void abandon() override;

 private:
  Result<void> replace();

  Disk& disk_;
  std::string const name_;
  std::vector<std::string> const leftovers_;
  Hooks const hooks_;
  std::unique_ptr<File> file_;
};

}  // namespace pstorage::mds::raft
