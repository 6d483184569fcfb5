// The configuration root /etc/pstorage (moved by PSTORAGE_ETC) and what is in it.
#pragma once

#include <string>
#include <vector>

#include "core/address.h"
#include "core/auth/key.h"
#include "core/ids.h"
#include "core/result.h"

namespace pstorage {

/// The port that names an MDS (make-mds -a, bs.list, -b) and that MDSs use between themselves. CSs
/// and clients use the port above it.
inline constexpr std::uint16_t mds_port_default = 2510;

/// PSTORAGE_ETC, or /etc/pstorage.
std::string etc_root();
/// etc_root()/clusters/NAME.
std::string cluster_directory(std::string const& cluster);
/// etc_root()/clusters/NAME/auth_digest.key.
std::string key_path(std::string const& cluster);
/// The cluster's name as given, or from PSTORAGE_NAME; checks a-z A-Z 0-9 _ -, 1 to 63 characters.
Outcome<std::string> cluster_name(std::string const& given);
/// Reads etc_root()/host_id (16 hex digits); makes it when it is missing and `create`.
/// PSTORAGE_HOST_ID, when set, takes its place.
Outcome<Host_id> host_id(bool create);
/// room.row.rack of this host (etc_root()/location), "" when there is no file.
std::string host_location();
/// Where to reach the metadata servers as a client: `given` ("A[:P],B[:P]") or, when empty,
/// clusters/NAME/bs.list (one ADDR[:P] a line) or, when there is no such file, what DNS or
/// then mDNS says (blocking, for some seconds when nobody answers). P is the port that names the
/// MDS; the addresses returned have the client port, P + 1. unix:PATH is taken as it is.
Outcome<std::vector<Address>> bootstrap_list(std::string const& cluster, std::string const& given);
/// What DNS says alone, as client addresses.
Outcome<std::vector<Address>> servers_in_dns(std::string const& cluster);
/// Who answers by mDNS, likewise.
Outcome<std::vector<Address>> servers_by_mdns(std::string const& cluster);
/// The clusters that have a directory in etc_root()/clusters, sorted.
std::vector<std::string> known_clusters();
/// Notes a repository of this host in clusters/NAME/KIND.list (KIND: mds, cs), which the init
/// scripts read. One path a line.
Outcome<void> note_repository(std::string const& cluster, std::string const& kind,
                              std::string const& directory);
/// Adds client addresses that are new, as bootstrap_list returns them, to bs.list (atomically, no
/// duplicates).
Outcome<void> save_bootstrap_list(std::string const& cluster, std::vector<Address> const& servers);
/// The same with a file like bs.list elsewhere: for daemons that may not write to etc_root().
Outcome<std::vector<Address>> load_server_list(std::string const& path);
Outcome<void> save_server_list(std::string const& path, std::vector<Address> const& servers);

}  // namespace pstorage
