// An open file of the cluster: what an NBD server, an image layer or a mount reads and writes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/ids.h"
#include "core/result.h"

namespace pstorage::client {

/// Runs of a file as block status sees them.
struct Extent {
  std::uint64_t length = 0;
  bool hole = false;  // reads as zeros and takes no space
};

using Done = std::function<void(Result<void>)>;
using Read_done = std::function<void(Result<std::vector<Slice>>)>;
using Extents_done = std::function<void(Result<std::vector<Extent>>)>;

/// One file, opened for reading and writing by this process alone. All calls and callbacks are on
/// the owner's loop; no callback runs inside the call that asked for it. Any number of requests may
/// be under way; overlapping ones are ordered as they were submitted. Ranges: any offset and length
/// inside the file, down to one byte (unaligned ones cost a read). Every request is answered:
/// while too few replicas are reachable it waits, unless the lease is lost (stale_epoch for all).
class Volume {
 public:
  virtual ~Volume() = default;

  virtual std::uint64_t size_bytes() const = 0;
  /// Every change is refused with read_only.
  virtual bool is_read_only() const { return false; }
  /// The MDS says that the file has another size now: somebody has resized it.
  virtual void set_size(std::uint64_t /*bytes*/) {}
  virtual std::string const& path() const = 0;

  /// Answers slices that together are exactly `length` bytes. Errors: corrupt (no replica has valid
  /// data), stale_epoch, closed.
  virtual void read(std::uint64_t offset, std::uint64_t length, Read_done done) = 0;

  /// Acknowledged when every in-sync replica has it in its page cache; with `fua`, on its disk.
  /// `data` (one or more slices, together `length` bytes) is kept until the answer. Errors:
  /// lost_writes when all replicas of a part of it lost their power before the rest was there.
  virtual void write(std::uint64_t offset, std::vector<Slice> data, bool fua, Done done) = 0;

  /// Makes the range read as zeros. Whole blocks become holes and give their space back. With
  /// `only_whole_blocks` (discard) the edges stay as they are.
  virtual void zero(std::uint64_t offset, std::uint64_t length, bool only_whole_blocks, bool fua,
                    Done done) = 0;

  /// Everything answered before this call is durable on every in-sync replica when it succeeds.
  /// Errors: lost_writes once when every replica of some chunk lost unflushed writes; stale_epoch.
  virtual void flush(Done done) = 0;

  /// Runs that cover exactly [offset, offset + length), at most `extents_max` of them (then the
  /// sum is shorter).
  virtual void extents(std::uint64_t offset, std::uint64_t length, std::size_t extents_max,
                       Extents_done done) = 0;

  /// Flushes, gives the lease back, then calls `done`. No request may follow.
  virtual void close(Done done) = 0;

  /// One clause why requests are waiting now ("chunk 12: 1 of 2 replicas needed, cs 1026 is not
  /// reachable"); empty when they are not.
  virtual std::string waiting_reason() const = 0;
};

}  // namespace pstorage::client
