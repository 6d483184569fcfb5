// The directory of a chunk server: who it is, and how one is made.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/env/disk.h"
#include "core/env/random.h"
#include "core/ids.h"
#include "core/result.h"

namespace pstorage::cs {

inline constexpr char const* identity_name = "repository.json";
inline constexpr std::uint64_t journal_bytes_default = 256ull << 20;
inline constexpr std::uint64_t journal_unit_bytes = 64ull << 20;  // -s is rounded up to it
inline constexpr std::uint64_t journal_bytes_min = 512u << 10;    // tests and simulation
inline constexpr std::uint64_t journal_bytes_max = 64ull << 30;

/// Contents of repository.json.
struct Repository_identity {
  std::string cluster;
  std::string cluster_uuid;
  Cs_id cs;
  std::string uuid;        // of this repository: 32 hex digits; a wiped one is another
  std::uint64_t salt = 0;  // of the journal
  std::string journal;     // absolute path; empty: DIR/journal
  std::uint32_t tier = 0;
  std::string address;    // ADDR[:PORT] given to make-cs; empty: any
  std::string bootstrap;  // LIST given to make-cs; empty: the cluster's
};

/// A fresh uuid and salt.
void randomize(Repository_identity& identity, Random& random);

/// Reads repository.json. Errors: one line with what is wrong.
Outcome<Repository_identity> load_identity(Disk& disk);

/// Fails unless the directory is empty but for lost+found and what an interrupted make-cs left,
/// which is removed.
Outcome<void> prepare_directory(Disk& disk);

/// Makes directories and the journal (`ring_bytes`, multiple of 4096); durable. On an error what
/// was made is removed again. `progress`: bytes of the journal written. Blocking.
Outcome<void> make_contents(Disk& disk, Disk& journal_disk, std::string const& journal_name,
                            Repository_identity const& identity, std::uint64_t ring_bytes,
                            std::function<void(std::uint64_t)> const& progress);

/// Writes repository.json; from then on, durably, this is a repository.
Outcome<void> finish_repository(Disk& disk, Repository_identity const& identity);

/// Removes what make_contents() made.
void remove_contents(Disk& disk, Disk& journal_disk, std::string const& journal_name);

}  // namespace pstorage::cs
