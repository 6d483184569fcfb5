// How an SSD is best shared between the journals of chunk servers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"

namespace pstorage::cli {

struct Advice_question {
  std::string cluster;
  struct Server {
    std::string directory;
    bool exists = false;  // is a repository already
  };
  std::vector<Server> servers;
  std::string ssd;  // a directory
  std::uint64_t ssd_free_bytes = 0;
  std::string mount_point;  // empty: none
};

/// Commands as words, in the order in which they are to run.
using Command = std::vector<std::string>;
using Commands = std::vector<Command>;

struct Advice {
  std::uint64_t journal_mb = 0;  // of each chunk server
  std::uint64_t cache_mb = 0;    // of the mount; 0: none
  Commands commands;
};

/// Pure. A tenth of the SSD stays free. The journals get equal shares of the rest (of half of it
/// when there is a mount point), in steps of 64 MB up to journal_mb_max; the mount's read cache
/// gets what is left. Errors: no_space.
Outcome<Advice> advise(Advice_question const& question);

/// As a shell reads it.
std::string shell_text(std::vector<std::string> const& words);

}  // namespace pstorage::cli
