// Finding clusters by multicast DNS (RFC 6762): the records of DNS (dns.h) in the domain local,
// asked of everybody on the same network. No other daemon (avahi) is needed, and none is in the
// way.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/address.h"
#include "core/config/dns.h"
#include "core/result.h"

namespace pstorage {

inline constexpr char mdns_group[] = "224.0.0.251";
inline constexpr std::uint16_t mdns_port = 5353;
inline constexpr std::size_t mdns_bytes_max = 1500;  // of a message, here

/// What a metadata server says about itself.
struct Mdns_service {
  std::string cluster;
  Address address;  // that names the MDS
};

/// The answer to `query`, or nothing: it is none, malformed, or asks for something else. An asker
/// at another port than mdns_port (`is_simple`) gets its question and number back.
std::vector<unsigned char> answer_mdns(std::vector<unsigned char> const& query,
                                       Mdns_service const& service, bool is_simple);
/// A question for records of `name`.
std::vector<unsigned char> mdns_question(std::string const& name, std::uint16_t type,
                                         std::uint16_t number);
/// The IPv4 addresses of this host, by the number of their interface.
struct Mdns_interface {
  int index = 0;
  std::uint32_t address = 0;  // network order
};
std::vector<Mdns_interface> mdns_interfaces();

/// Blocking: 1 s when nobody answers, else 0.3 s longer than the first answer took. Errors:
/// not_found, with a line.
Outcome<std::vector<Dns_server>> find_servers_by_mdns(std::string const& cluster);
/// The clusters whose metadata servers answer; none is no error. Blocking: 1 s.
Outcome<std::vector<std::string>> find_clusters_by_mdns();

}  // namespace pstorage
