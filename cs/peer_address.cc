#include "cs/peer_address.h"

namespace pstorage::cs {

Address pick_address(proto::Cs_address const& server, Host_id own_host) {
  Address chosen;
  for (std::string const& text : server.addresses()) {
    auto const parsed = Address::parse(text, 0);
    if (parsed.has_error()) continue;
    bool const here = server.host_id() == own_host.value;
    if (parsed.value().is_unix() && here) return parsed.value();
    if (!parsed.value().is_unix() && chosen.host.empty()) chosen = parsed.value();
  }
  return chosen;
}

}  // namespace pstorage::cs
