#include "core/net/stream_acceptor.h"

#include <unistd.h>

#include <utility>

namespace pstorage {

Stream_acceptor::Stream_acceptor(boost::asio::io_context& io, Address address, File_descriptor fd,
                                 Accepted accepted, Failed failed)
    : address_(std::move(address)),
      socket_(io, fd.release()),
      accepted_(std::move(accepted)),
      failed_(std::move(failed)) {}

void Stream_acceptor::wait() {
  socket_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                     [self = shared_from_this()](boost::system::error_code const& error) {
                       if (!error && self->socket_.is_open()) self->accept_all();
                     });
}

void Stream_acceptor::stop() {
  if (!socket_.is_open()) return;
  boost::system::error_code ignored;
  socket_.close(ignored);
  paused_ = false;
  if (address_.is_unix()) ::unlink(address_.unix_path.c_str());
}

// A failed accept() (no more descriptors) leaves the socket readable: waiting for it at once would
// spin.
void Stream_acceptor::resume() {
  if (std::exchange(paused_, false)) wait();
}

void Stream_acceptor::accept_all() {
  for (int i = 0; i < accepts_a_turn && socket_.is_open(); ++i) {
    auto fd = accept_one(socket_.native_handle());
    if (fd) {
      accepted_(std::move(fd).value());
      continue;
    }
    auto const error = fd.error();
    if (error == std::errc::resource_unavailable_try_again) break;
    if (error == std::errc::connection_aborted || error == std::errc::interrupted) continue;
    paused_ = true;
    return failed_(error);
  }
  if (socket_.is_open()) wait();
}

}  // namespace pstorage
