// What DNS says about clusters: where their metadata servers are, and which there are.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"

namespace pstorage {

/// Of a record "_pstorage._tcp.CLUSTER SRV PRIORITY WEIGHT PORT HOST".
struct Dns_server {
  std::string host;
  std::uint16_t port = 0;  // that names the MDS
};

/// The name of the records of `cluster`; the search list of resolv.conf completes it.
std::string srv_name(std::string const& cluster);
/// In order of priority. Blocking: at most some seconds a name server. Errors: not_found (DNS
/// answers that there is nothing), unavailable (no name server answers), each with a line.
Outcome<std::vector<Dns_server>> find_srv(std::string const& cluster);
/// The SRV records of an answer, in order of priority; none when it is malformed.
std::vector<Dns_server> srv_records(std::vector<unsigned char> const& answer);
/// The names in the TXT records of an answer; none when it is malformed.
std::vector<std::string> txt_names(std::vector<unsigned char> const& answer);
/// The clusters that the TXT records of "pstorage_clusters" name. Errors: as above.
Outcome<std::vector<std::string>> find_cluster_names();

}  // namespace pstorage
