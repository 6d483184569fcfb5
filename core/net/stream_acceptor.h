// A listening socket in the loop. Internal to what brings its own sockets (core/net, NBD server).
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>

#include "core/disk/file_descriptor.h"
#include "core/net/socket.h"

namespace pstorage {

/// Accepts whatever has arrived each time it is readable. Held by shared_ptr: its completion
/// handlers keep it alive.
class Stream_acceptor final : public std::enable_shared_from_this<Stream_acceptor> {
 public:
  /// Gets each accepted socket, which it then owns.
  using Accepted = std::function<void(File_descriptor)>;
  /// Hears why accept() failed (no more descriptors); accepting goes on after resume().
  using Failed = std::function<void(std::error_code)>;

  /// `address`, `fd`: from listen_at().
  Stream_acceptor(boost::asio::io_context& io, Address address, File_descriptor fd,
                  Accepted accepted, Failed failed);

  Address const& address() const { return address_; }
  void start() { wait(); }
  /// Closes the socket and removes its file; nothing is called any more.
  void stop();
  /// Call now and then: tries again after a failure.
  void resume();

 private:
  static constexpr int accepts_a_turn = 32;

  void wait();
  void accept_all();

  Address address_;
  boost::asio::posix::stream_descriptor socket_;
  Accepted accepted_;
  Failed failed_;
  bool paused_ = false;
};

}  // namespace pstorage
