// What 'pstorage doctor' finds in a cluster and on a host.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mds.pb.h"

namespace pstorage::cli {

enum class Verdict {
  well,
  hint,     // nothing is wrong; something cannot be seen from here, or could be better
  warning,  // works, but does not survive what it should, or will not for long
  fault,    // does not work, or data is at risk now
};

struct Finding {
  Verdict verdict = Verdict::well;
  std::string check;   // one word: "clocks"
  std::string text;    // what is so
  std::string advice;  // what to do; empty when well
};

/// "OK", "HINT", "WARN", "FAULT".
char const* verdict_name(Verdict verdict);

/// A repository on this host.
struct Repository_facts {
  std::string kind;  // mds, cs
  std::string directory;
  bool is_there = false;
  std::string file_system;  // "ext4", "tmpfs"; empty: not known
  std::string device;       // "sda"; empty: not known
  std::string write_cache;  // "write back", "write through"; empty: not known
  std::optional<bool> is_rotating;
  std::optional<double> sync_ms;  // a write of 4 KiB made durable, on average
};

struct Host_facts {
  std::string version;
  std::optional<bool> is_clock_synchronised;
  unsigned key_mode = 0600;
  std::vector<Repository_facts> repositories;
};

/// Pure. `failure_domain`: of the root directory. One finding a check at least, well or not.
std::vector<Finding> examine_cluster(proto::Status_reply const& status,
                                     std::string const& failure_domain,
                                     std::string const& own_version);
/// Pure.
std::vector<Finding> examine_host(Host_facts const& host);

}  // namespace pstorage::cli
