// What an image needs of the file it lies in: a local file, a file of the cluster, a simulated one.
#pragma once

#include <cstdint>
#include <vector>

#include "core/client/volume.h"

namespace pstorage::ploop {

using client::Done;
using client::Read_done;

/// The bytes of one image file. All calls and callbacks are on the owner's loop; a callback never
/// runs inside the call that asked for it, and none after the store's destruction. Any number of
/// requests may be under way; those that overlap take effect in the order they were submitted.
/// Ranges lie inside size_bytes(). client::Volume keeps the same promises, so a store over a file
/// of the cluster hands its calls on.
class Image_store {
 public:
  virtual ~Image_store() = default;

  /// As of the last answered extend() or truncate().
  virtual std::uint64_t size_bytes() const = 0;

  /// Answers slices that together are exactly `length` bytes.
  virtual void read(std::uint64_t offset, std::uint64_t length, Read_done done) = 0;

  /// Answered: survives the death of this process. With `fua`: durable.
  virtual void write(std::uint64_t offset, std::vector<Slice> data, bool fua, Done done) = 0;

  /// The range reads as zeros afterwards; whole blocks of the store give their space back. With
  /// `only_whole_blocks` the edges stay as they are. `fua` as for write().
  virtual void punch(std::uint64_t offset, std::uint64_t length, bool only_whole_blocks, bool fua,
                     Done done) = 0;

  /// Everything answered before this call is durable when it succeeds.
  virtual void flush(Done done) = 0;

  /// Makes the file larger; what is new reads as zeros. Durable when answered.
  virtual void extend(std::uint64_t size_bytes, Done done) = 0;

  /// Makes the file smaller. Durable after the next flush().
  virtual void truncate(std::uint64_t size_bytes, Done done) = 0;

  /// Gives back what opening took (a lease). No request may follow.
  virtual void close(Done done) = 0;
};

}  // namespace pstorage::ploop
