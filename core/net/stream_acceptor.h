// A listening socket in the loop. Internal to what brings its own sockets (core/net, NBD server).
#pragma once

#include <functional>
#include <memory>

#include "core/disk/file_descriptor.h"
#include "core/net/event_loop.h"
#include "core/net/socket.h"

namespace pstorage {

/// Accepts whatever has arrived each time it is readable. Held by shared_ptr: a callback may drop
/// it.
class Stream_acceptor final : public std::enable_shared_from_this<Stream_acceptor>,
                              private Event_handler {
 public:
  /// Gets each accepted socket, which it then owns.
  using Accepted = std::function<void(File_descriptor)>;
  /// Hears why accept() failed (no more descriptors); accepting goes on after resume().
  using Failed = std::function<void(std::error_code)>;

  /// `address`, `fd`: from listen_at().
  Stream_acceptor(Event_loop& loop, Address address, File_descriptor fd, Accepted accepted,
                  Failed failed);

  Address const& address() const { return address_; }
  void start() { socket_.open(std::move(fd_)); }
  /// Closes the socket and removes its file; nothing is called any more.
  void stop();
  /// Call now and then: tries again after a failure.
  void resume();

 private:
  static constexpr int accepts_a_turn = 32;

  void on_ready(Readiness ready) override;

  Address address_;
  File_descriptor fd_;  // until start()
  Watch socket_;
  Accepted accepted_;
  Failed failed_;
  bool paused_ = false;
};

}  // namespace pstorage
