// The work of `pstorage make-cs`: a repository on this host's disk, known to the cluster.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/ids.h"
#include "core/result.h"
#include "mds.pb.h"

namespace pstorage::cs {

struct Make_cs_options {
  std::string cluster;
  std::string directory;     // made when it is missing; empty but for lost+found
  std::string address;       // ADDR[:PORT] to listen on; empty: chosen at each start
  std::string bootstrap;     // LIST, kept in the repository; empty: the cluster's bs.list
  std::string journal_path;  // a file to be made, or a directory for it; empty: in the repository
  std::uint64_t journal_mb = 256;  // rounded up to a multiple of 64
  std::uint32_t tier = 0;          // 0 to 3
  Host_id host;
  std::string host_name;
  std::string location;  // room.row.rack, "" = default
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;  // bytes of the journal
};

/// A blocking request to the MDS.
using Mds_call = std::function<Outcome<proto::Mds_reply>(proto::Mds_request)>;

/// Makes and registers it. On an error nothing of it is left; a killed one is taken up by the next
/// make-cs on the same directory. Blocking (the journal is written once in full).
Outcome<Cs_id> make_cs(Make_cs_options const& options, Mds_call const& call);

}  // namespace pstorage::cs
