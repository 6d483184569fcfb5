// Cuts a stream of bytes into messages without copying payloads. No sockets: bytes are received
// into the buffers it offers.
#pragma once

#include "core/net/message.h"
#include "core/net/receive_buffer.h"

namespace pstorage {

/// Thread: the owner's loop. Use: prepare(), receive, commit(), next() until it says more or
/// malformed; again.
class Frame_reader {
 public:
  enum class Next { message, shared, more, malformed };

  /// See Receive_buffer.
  Receive_buffer::Buffers prepare() { return buffer_.prepare(); }
  void commit(std::size_t bytes) { buffer_.commit(bytes); }
  /// Moves the next complete message into `message`. Its slices lie in the receive block (or in a
  /// block of their own) and keep it. shared: its data is what reference() says. malformed: end the
  /// connection.
  Next next(Message& message);
  Shared_reference const& reference() const { return reference_; }

 private:
  Next found(Framed_header const& framed, Slice meta, Slice data, Message& message);

  Receive_buffer buffer_;
  Shared_reference reference_;
  Framed_header large_header_;
};

}  // namespace pstorage
