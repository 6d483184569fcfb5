// Gives a repository whose csd is stopped another journal: elsewhere, back inside, or larger. Each
// step can be cut off; the repository then has the old journal or the new one, never none.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/env/disk.h"
#include "core/result.h"
#include "cs/repository.h"

namespace pstorage::cs {

/// Opens the directory of a journal; for an empty path the repository itself.
using Open_journal_directory =
    std::function<Outcome<std::shared_ptr<Disk>>(std::string const& path)>;

struct Journal_move {
  std::string to;                // absolute path of a file to be made; empty: DIR/journal
  std::uint64_t ring_bytes = 0;  // multiple of 4096; 0: as many as it had
  std::uint64_t salt = 0;        // random, another one than the present
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;  // bytes written
};

/// Where the directory and the name of a journal are cut: "" is the repository's own.
std::string journal_file_name(std::string const& path);

/// Removes what an interrupted move has left; nothing when there was none.
Outcome<void> finish_journal_move(Disk& repository, Open_journal_directory const& open);

/// Moves the journal; `identity` becomes the new one. Only when the present journal holds nothing
/// that the chunk files lack: after an orderly stop. Blocking. On an error the old one stays, or,
/// after the new one has taken its place, the line says so. Errors: busy (the journal has work),
/// exists, no_space, the disks'.
Outcome<void> move_journal(Disk& repository, Repository_identity& identity,
                           Journal_move const& move, Open_journal_directory const& open);

}  // namespace pstorage::cs
