// Which hosts may connect. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"

namespace pstorage::nbd {

/// An IPv4 address as IPv6 has it (::ffff:a.b.c.d), or an IPv6 address; in network order.
using Host_bytes = std::array<std::uint8_t, 16>;

/// Errors: bad_request: no numeric address.
Outcome<Host_bytes> parse_host(std::string const& text);

class Allow_list {
 public:
  /// Adds "192.168.0.0/24", "fd00::/8" or one address. Errors: bad_request, with what is possible.
  Outcome<void> add(std::string const& network);
  /// An empty list allows everybody.
  bool allows(Host_bytes const& host) const;

 private:
  struct Network {
    Host_bytes host;
    unsigned bits;
  };
  std::vector<Network> networks_;
};

}  // namespace pstorage::nbd
