// Addresses as people write them: ADDR[:PORT], [V6][:PORT], unix:PATH.
#pragma once

#include <cstdint>
#include <string>

#include "core/result.h"

namespace pstorage {

/// Where a server listens or a client connects: TCP (host, port) or a unix socket (path).
struct Address {
  std::string host;        // numeric IPv4/IPv6 or a name; empty for a unix socket
  std::uint16_t port = 0;  // 0 = any (listen only)
  std::string unix_path;   // empty for TCP

  bool is_unix() const { return !unix_path.empty(); }
  bool operator==(Address const&) const = default;
  auto operator<=>(Address const&) const = default;

  /// Parses `text`; a missing port becomes `default_port`. Errors: bad_request, with the reason.
  static Outcome<Address> parse(std::string const& text, std::uint16_t default_port);
  /// "192.168.0.1:2511", "[::1]:2511", "unix:/run/x.sock".
  std::string text() const;
};

}  // namespace pstorage
