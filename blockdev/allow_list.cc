#include "blockdev/allow_list.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

namespace pstorage::nbd {
namespace {

constexpr unsigned v4_prefix_bits = 96;

}  // namespace

Outcome<Host_bytes> parse_host(std::string const& text) {
  Host_bytes host{};
  if (::inet_pton(AF_INET6, text.c_str(), host.data()) == 1) return host;
  host = {};
  host[10] = host[11] = 0xFF;
  if (::inet_pton(AF_INET, text.c_str(), host.data() + 12) == 1) return host;
  return failure(Errc::bad_request, "'" + text + "' is no address");
}

Outcome<void> Allow_list::add(std::string const& network) {
  auto const bad =
      failure(Errc::bad_request, "bad network '" + network +
                                     "': give one like 192.168.0.0/24, fd00::/8 or 192.168.0.7");
  auto const slash = network.find('/');
  auto const host = parse_host(network.substr(0, slash));
  if (!host.has_value()) return bad;
  bool const is_v4 = network.find(':') == std::string::npos;
  unsigned const bits_max = is_v4 ? 32 : 128;
  unsigned bits = bits_max;
  if (slash != std::string::npos) {
    auto const* const begin = network.data() + slash + 1;
    auto const* const end = network.data() + network.size();
    auto const [at, error] = std::from_chars(begin, end, bits);
    if (error != std::errc{} || at != end || bits > bits_max) return bad;
  }
  networks_.push_back({host.value(), bits + (is_v4 ? v4_prefix_bits : 0)});
  return success();
}

bool Allow_list::allows(Host_bytes const& host) const {
  auto const matches = [&](Network const& network) {
    for (unsigned bit = 0; bit < network.bits; ++bit) {
      auto const mask = static_cast<std::uint8_t>(0x80 >> bit % 8);
      if (((host[bit / 8] ^ network.host[bit / 8]) & mask) != 0) return false;
    }
    return true;
  };
  return networks_.empty() || std::any_of(networks_.begin(), networks_.end(), matches);
}

}  // namespace pstorage::nbd
