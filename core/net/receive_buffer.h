// Where the bytes of a stream are received: a large block that many small messages are cut from,
// and a block of its own for each large payload. Nothing is copied but what straddles a block's
// end.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <utility>

#include "core/buffer.h"

namespace pstorage {

/// Bytes of the block that everything is received into. One read takes many small requests.
inline constexpr std::size_t receive_block_bytes = 256u << 10;
/// A payload of at least this size that is not there as a whole belongs into a block of its own:
/// the rest is received straight into it.
inline constexpr std::size_t large_payload_bytes = 64u << 10;

/// Thread: the owner's loop. Use: prepare(), receive, commit(); take what is complete; again.
class Receive_buffer {
 public:
  /// `take`: memory for a large payload of so many bytes, or an empty slice.
  using Take_large = std::function<Slice(std::size_t bytes)>;
  explicit Receive_buffer(Take_large take = nullptr) : take_(std::move(take)) {}

  struct Buffers {
    std::array<Mutable_bytes, 2> parts;
    std::size_t count = 0;
  };

  /// Where the next bytes go, in order. Valid until the next call.
  Buffers prepare();
  /// `bytes` have been put into the prepared buffers.
  void commit(std::size_t bytes);

  /// What is there and not taken, contiguous. Valid until the next prepare(). Not while a large
  /// payload is under way.
  Bytes view() const { return {block_.data() + begin_, end_ - begin_}; }
  /// Passes over `bytes` of the view.
  void skip(std::size_t bytes);
  /// `bytes` from position `at` of the view as a slice that keeps them.
  Slice part(std::size_t at, std::size_t bytes) const;
  /// The view must grow to `bytes` before anything can be taken.
  void want(std::size_t bytes) { wanted_ = bytes; }

  /// The next `bytes` (more than the view has) get a block of their own.
  void begin_large(std::size_t bytes);
  bool in_large() const { return !large_.empty(); }
  bool large_is_complete() const { return large_filled_ == large_.size(); }
  /// The complete large payload.
  Slice take_large();

 private:
  // Below this a read would be too small to batch.
  static constexpr std::size_t tail_bytes_min = 32u << 10;
  // Received into the block where another large payload is likely: enough for its header. What
  // arrives of the payload itself with it has to be copied.
  static constexpr std::size_t probe_bytes = 4096;

  void make_room();

  Take_large take_;
  Slice block_;  // taken up to begin_, filled up to end_
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::size_t wanted_ = 0;
  Slice large_;
  std::size_t large_filled_ = 0;
  bool expects_large_ = false;  // the last thing taken was a large payload
};

}  // namespace pstorage
