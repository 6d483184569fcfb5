#include "cs/configure_cs.h"

#include <filesystem>

#include "core/auth/key.h"
#include "core/cli/daemon.h"
#include "core/disk/posix_disk.h"
#include "cs/journal_move.h"
#include "cs/make_cs.h"

namespace pstorage::cs {
namespace {

std::uint64_t random_number() {
  auto const bytes = random_salt();
  return load_le<std::uint64_t>(bytes.data());
}

Outcome<std::string> target_of(Configure_cs_options const& options,
                               Repository_identity const& identity) {
  if (options.change == Journal_change::drop && identity.journal.empty()) {
    return failure(Errc::refused, "the journal is in the repository already");
  }
  if (options.change == Journal_change::add && !identity.journal.empty()) {
    return failure(Errc::refused,
                   "the journal is at " + identity.journal + " already: -m moves it, -d drops it");
  }
  if (options.change == Journal_change::move && identity.journal.empty()) {
    return failure(Errc::refused, "the journal is in the repository: -a puts it elsewhere");
  }
  if (options.change == Journal_change::drop) return std::string();
  return journal_path_for(options.journal_path, identity);
}

}  // namespace

Outcome<Repository_identity> configure_cs(Configure_cs_options const& options) {
  // Nothing asynchronous is asked of these disks, so nothing is ever posted.
  Io_pool pool;
  Post const post = [](std::function<void()>) {};
  PS_TRY(auto const repository, open_posix_disk(options.directory, pool, post));
  PS_TRY(auto identity, load_identity(*repository));
  PS_TRY(auto const lock, cli::File_lock::acquire(options.directory + "/lock"));
  Open_journal_directory const open =
      [&](std::string const& path) -> Outcome<std::shared_ptr<Disk>> {
    auto const directory =
        path.empty() ? options.directory : std::filesystem::path(path).parent_path().string();
    PS_TRY(auto disk, open_posix_disk(directory, pool, post));
    return std::shared_ptr<Disk>(std::move(disk));
  };
  PS_CHECK(finish_journal_move(*repository, open));
  PS_TRY(identity, load_identity(*repository));
  Journal_move move;
  PS_TRY(move.to, target_of(options, identity));
  if (options.journal_mb != 0) {
    PS_TRY(move.ring_bytes, journal_ring_bytes(options.journal_mb));
  }
  move.salt = random_number();
  PS_TRY(auto const disk, open(move.to));
  PS_CHECK(
      check_journal_space(*disk, move.to.empty() ? options.directory : move.to, move.ring_bytes));
  move.progress = options.progress;
  PS_CHECK(move_journal(*repository, identity, move, open));
  return identity;
}

}  // namespace pstorage::cs
