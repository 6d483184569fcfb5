// Cuts a stream of bytes into messages without copying payloads. No sockets: bytes are received into
// the buffers it offers.
#pragma once

#include <array>
#include <cstddef>

#include "core/buffer.h"
#include "core/net/message.h"

namespace pstorage {

/// Bytes of the block that everything is received into. One read takes many small requests.
inline constexpr std::size_t receive_block_bytes = 256u << 10;
/// A message with at least this much payload, not yet complete, gets a block of its own: the rest is
/// received straight into it.
inline constexpr std::size_t large_payload_bytes = 64u << 10;

/// Thread: the owner's loop. Use: prepare(), receive, commit(), next() until it says more or
/// malformed; again.
class Frame_reader {
 public:
  enum class Next { message, more, malformed };
  struct Buffers {
    std::array<Mutable_bytes, 2> parts;
    std::size_t count = 0;
  };

  /// Where the next bytes go, in order. Valid until the next call.
  Buffers prepare();
  /// `bytes` have been put into the prepared buffers.
  void commit(std::size_t bytes);
  /// Moves the next complete message into `message`. Its slices lie in the receive block (or in a
  /// block of their own) and keep it. malformed: end the connection.
  Next next(Message& message);
  /// Are there bytes of an incomplete message?
  bool in_message() const { return begin_ != end_ || !large_.empty(); }

 private:
  // Below this a read would be too small to batch.
  static constexpr std::size_t tail_bytes_min = 32u << 10;

  void make_room();
  void begin_large(Framed_header const& framed);

  Slice block_;            // the receive block; parsed up to begin_, filled up to end_
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::size_t wanted_ = 0;  // bytes of the incomplete message at begin_, when known
  Slice large_;            // payload under way in its own block
  std::size_t large_filled_ = 0;
  Framed_header large_header_;
};

}  // namespace pstorage
