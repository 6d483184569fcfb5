#include "core/address.h"

#include <charconv>

namespace pstorage {
namespace {

Outcome<std::uint16_t> parse_port(std::string const& text, std::string const& whole) {
  unsigned value = 0;
  auto const* end = text.data() + text.size();
  auto const [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end || value > 65535)
    return failure(Errc::bad_request, "bad port '" + text + "' in address '" + whole +
                                          "': give a number from 0 to 65535");
  return static_cast<std::uint16_t>(value);
}

}  // namespace

Outcome<Address> Address::parse(std::string const& text, std::uint16_t default_port) {
  Address address;
  address.port = default_port;
  if (text.starts_with("unix:")) {
    address.unix_path = text.substr(5);
    address.port = 0;
    // sun_path holds 108 bytes with its final zero.
    if (address.unix_path.empty() || address.unix_path.size() > 107)
      return failure(Errc::bad_request,
                     "bad socket path in '" + text + "': give 1 to 107 characters after unix:");
    return address;
  }
  std::string port;
  if (text.starts_with('[')) {
    auto const end = text.find(']');
    if (end == std::string::npos)
      return failure(Errc::bad_request, "address '" + text + "' lacks its closing ]");
    address.host = text.substr(1, end - 1);
    if (end + 1 < text.size()) {
      if (text[end + 1] != ':')
        return failure(Errc::bad_request, "address '" + text + "': only :PORT may follow ]");
      port = text.substr(end + 2);
    }
  } else if (auto const colon = text.find(':');
             colon != std::string::npos && text.find(':', colon + 1) == std::string::npos) {
    address.host = text.substr(0, colon);
    port = text.substr(colon + 1);
    if (port.empty())
      return failure(Errc::bad_request, "address '" + text + "' ends in a colon: give a port");
  } else {
    address.host = text;  // a name, IPv4, or bare IPv6
  }
  if (address.host.empty())
    return failure(Errc::bad_request, "address '" + text + "' has no host: give ADDR[:PORT]");
  if (!port.empty()) {
    PS_TRY(address.port, parse_port(port, text));
  }
  return address;
}

std::string Address::text() const {
  if (is_unix()) return "unix:" + unix_path;
  bool const v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

}  // namespace pstorage
