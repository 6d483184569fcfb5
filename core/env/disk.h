// A directory tree on a disk as the roles see it. Real: core/disk/posix_disk.h; simulated:
// tests/sim (loses unsynced writes, tears at 512 bytes, rots, fills up, stalls, fails).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/result.h"

namespace pstorage {

/// Called on the owner's loop, never from inside the call that started it, and never after the File
/// was destroyed.
using Disk_completion = std::function<void(Result<void>)>;

/// An open file. Errors are the system's codes; errc_of() sorts them.
class File {
 public:
  virtual ~File() = default;
  /// Writes `parts` one behind the other at `offset`, into the page cache: survives the death of
  /// the process, not of the machine. All or an error.
  virtual Result<void> write(std::uint64_t offset, std::span<Bytes const> parts) = 0;
  Result<void> write(std::uint64_t offset, Bytes part) { return write(offset, {&part, 1}); }
  /// Reads exactly to.size() bytes; past the end of the file they are zeros. May block on the disk:
  /// for start-up and repair, not for requests.
  virtual Result<void> read(std::uint64_t offset, Mutable_bytes to) = 0;
  /// As read, but would_block instead of waiting for the disk.
  virtual Result<void> read_cached(std::uint64_t offset, Mutable_bytes to) = 0;
  /// As read, off the loop. `to` must stay until the completion or until the File is destroyed
  /// (which waits).
  virtual void read_async(std::uint64_t offset, Mutable_bytes to, Disk_completion done) = 0;
  /// fdatasync off the loop: what was written before the call is durable when it succeeds. After an
  /// error nothing is known about any unsynced write; never retry.
  virtual void sync_async(Disk_completion done) = 0;
  /// fdatasync, blocking. For start-up and tools.
  virtual Result<void> sync() = 0;
  /// Makes [offset, offset + length) read as zeros and gives its space back. Multiples of 4096.
  virtual Result<void> punch_hole(std::uint64_t offset, std::uint64_t length) = 0;
  /// Sets the file's size; growth reads as zeros and takes no space.
  virtual Result<void> truncate(std::uint64_t size) = 0;
  virtual Result<std::uint64_t> size() = 0;
  /// Bytes of disk space the file takes.
  virtual Result<std::uint64_t> allocated_bytes() = 0;
};

struct Open_mode {
  bool create = false;     // make it if missing
  bool exclusive = false;  // fail with file_exists if it is there
  bool random = false;  // chunk data: POSIX_FADV_RANDOM, small write pieces where the fs needs it
};

struct Disk_space {
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;
};

/// One directory tree; `name`s are relative paths inside it ("chunks/12/0000000000000012").
class Disk {
 public:
  virtual ~Disk() = default;
  virtual Result<std::unique_ptr<File>> open(std::string const& name, Open_mode mode) = 0;
  virtual bool exists(std::string const& name) = 0;
  /// Names in directory `name` ("" = the root), without . and .., in any order.
  virtual Result<std::vector<std::string>> list(std::string const& name) = 0;
  virtual Result<void> make_directory(std::string const& name) = 0;
  virtual Result<void> remove(std::string const& name) = 0;
  /// Atomic replacement; durable after sync_directory of the parent.
  virtual Result<void> rename(std::string const& from, std::string const& to) = 0;
  /// Makes creations, removals and renames in directory `name` durable. Blocking.
  virtual Result<void> sync_directory(std::string const& name) = 0;
  virtual void sync_directory_async(std::string const& name, Disk_completion done) = 0;
  virtual Result<Disk_space> space() = 0;
};

}  // namespace pstorage
