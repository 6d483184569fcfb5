#include "core/net/stream_acceptor.h"

#include <unistd.h>

#include <utility>

namespace pstorage {

Stream_acceptor::Stream_acceptor(Event_loop& loop, Address address, File_descriptor fd,
                                 Accepted accepted, Failed failed)
    : address_(std::move(address)),
      fd_(std::move(fd)),
      socket_(loop, *this),
      accepted_(std::move(accepted)),
      failed_(std::move(failed)) {}

void Stream_acceptor::stop() {
  if (!socket_.is_open()) return;
  socket_.close();
  paused_ = false;
  if (address_.is_unix()) ::unlink(address_.unix_path.c_str());
}

// A failed accept() (no more descriptors) leaves the socket readable: trying again at once would
// spin.
void Stream_acceptor::resume() {
  if (std::exchange(paused_, false)) socket_.again();
}

void Stream_acceptor::on_ready(Readiness) {
  auto const self = shared_from_this();
  for (int i = 0; i < accepts_a_turn && socket_.is_open(); ++i) {
    auto fd = accept_one(socket_.fd());
    if (fd) {
      accepted_(std::move(fd).value());
      continue;
    }
    auto const error = fd.error();
    if (error == std::errc::resource_unavailable_try_again) return;
    if (error == std::errc::connection_aborted || error == std::errc::interrupted) continue;
    paused_ = true;
    return failed_(error);
  }
  if (socket_.is_open()) socket_.again();
}

}  // namespace pstorage
