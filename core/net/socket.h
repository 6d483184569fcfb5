// Stream sockets of both kinds as the internal network and the NBD server use them: POSIX calls
// with their errors put into words. Non-blocking, close-on-exec.
#pragma once

#include <sys/socket.h>

#include <span>
#include <string>
#include <vector>

#include "core/address.h"
#include "core/disk/file_descriptor.h"
#include "core/net/send_queue.h"
#include "core/result.h"

namespace pstorage {

/// A socket address of any family.
struct Endpoint {
  sockaddr_storage storage{};
  socklen_t size = 0;
  sockaddr const* get() const { return reinterpret_cast<sockaddr const*>(&storage); }
};

/// The endpoint of a unix path or of a numeric host; not_found when the host is a name.
Result<Endpoint> numeric_endpoint(Address const& address);
/// Looks a name up (blocking: DNS).
Outcome<std::vector<Endpoint>> resolve(Address const& address);
/// A listening socket at `at`; `real` gets the port that was chosen. A unix socket file that nobody
/// listens on any more is replaced; a live one, or any other file, is left alone: exists.
Outcome<File_descriptor> listen_at(Address const& at, Address& real);
/// A socket with a connect under way (or done); wait until writable, then socket_error().
Result<File_descriptor> begin_connect(Endpoint const& to);
/// SO_ERROR: how the connect ended.
std::error_code socket_error(int fd);
/// One accepted connection; resource_unavailable_try_again when there is none.
Result<File_descriptor> accept_one(int listener);
/// What one read brought.
struct Received {
  std::size_t bytes = 0;
  bool drained = false;  // nothing more is there now
  bool closed = false;   // the peer has ended it
  std::error_code error;
};
/// Reads once into `parts` (at most two), one behind the other. A unix socket: with `passed`, which
/// gets the descriptor that came along, if one did.
Received receive_some(int fd, std::span<Mutable_bytes const> parts,
                      File_descriptor* passed = nullptr);
/// Writes what is queued as far as the socket takes it now; what is left waits until it is
/// writable. Errors: the connection is lost.
std::error_code send_queued(int fd, Send_queue& queue);
/// No delay, keep-alive, cubic where it exists; for unix sockets 256 KiB of buffers.
void tune_socket(int fd);
/// "192.168.0.1:4711"; for a unix socket "unix:PATH (pid N)" with `unix_path`.
std::string peer_text(int fd, std::string const& unix_path);
/// Is the other end on this host?
bool peer_is_local(int fd);
/// One clause about a failed connect: what, and what to do.
std::string connect_failure_text(std::string const& address, std::error_code error);

}  // namespace pstorage
