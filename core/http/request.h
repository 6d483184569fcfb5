// HTTP/1.1 requests of a server that only shows things: GET and HEAD, no bodies. No sockets.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "core/result.h"

namespace pstorage::http {

struct Request {
  bool is_head = false;
  std::string path;           // "/metrics": what is before a '?', as it was sent
  std::string host;           // without a port, lower case
  std::string authorization;  // as it was sent
  bool keeps_alive = true;
};

/// What a status number is called.
std::string_view reason_of(unsigned status);

/// Collects bytes until a request's head is complete. Everything that is not such a request is
/// refused; after that the connection is of no more use.
class Request_parser {
 public:
  static constexpr std::size_t head_bytes_max = 8192;
  static constexpr std::size_t headers_max = 64;

  enum class State { more, complete, refused };

  /// Takes what was received. `request` is filled when complete; what follows it is kept and looked
  /// at by the next call.
  State feed(std::string_view bytes, Request& request);
  /// Something is kept that was not yet looked at as a whole.
  bool has_bytes() const { return !bytes_.empty(); }
  /// Why it was refused: a status of HTTP.
  unsigned status() const { return status_; }

 private:
  State refuse(unsigned status);
  bool take_request_line(std::string_view line, Request& request);
  bool take_header(std::string_view line, Request& request);

  std::string bytes_;
  unsigned status_ = 400;
  bool is_refused_ = false;
};

}  // namespace pstorage::http
