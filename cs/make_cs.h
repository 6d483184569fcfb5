// The work of `pstorage make-cs`: a repository on this host's disk, known to the cluster.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/ids.h"
#include "core/result.h"
#include "cs/repository.h"
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

/// Bytes of a journal of so many MB, rounded up. Errors: bad_request.
Outcome<std::uint64_t> journal_ring_bytes(std::uint64_t mb);
/// The absolute path of a journal at `given`, a file to be made or a directory for it. Errors:
/// not_found.
Outcome<std::string> journal_path_for(std::string const& given,
                                      Repository_identity const& identity);
/// Errors: no_space, saying how much `path` has and needs.
Outcome<void> check_journal_space(Disk& disk, std::string const& path, std::uint64_t needed);

/// Makes and registers it. On an error nothing of it is left; a killed one is taken up by the next
/// make-cs on the same directory. Blocking (the journal is written once in full).
Outcome<Cs_id> make_cs(Make_cs_options const& options, Mds_call const& call);

}  // namespace pstorage::cs
