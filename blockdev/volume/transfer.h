// Disks from and to files outside the cluster, and other NBD servers. Raw files and NBD sources are
// copied here; for everything else the volume is served on a private socket to qemu-img or nbdcopy.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "blockdev/volume/transfer_note.h"
#include "blockdev/volume/volume_opener.h"
#include "blockdev/volume/volume_work.h"

namespace pstorage::volume {

/// What is to be read or written outside.
struct Outside {
  std::string where;   // path or NBD URI
  std::string format;  // raw, qcow2, vmdk, ...; "nbd"; "ploop": a directory with a disk
  std::uint64_t size_bytes = 0;
  std::int64_t modified_ns = 0;  // of a file, since 1970

  bool is_uri() const { return format == "nbd"; }
};

/// Finds out what `where` is: its format (or `given`), and its size. Errors: not_found,
/// bad_request, refused (a program that can read it is missing: the line names it).
Outcome<Outside> inspect_source(std::string const& where, std::string const& given);
/// Format by `given`, else by the name's ending, else raw. Errors: exists.
Outcome<Outside> plan_target(std::string const& where, std::string const& given);

class Transfer {
 public:
  Transfer(Tool_session& session, ploop::Progress progress)
      : session_(session), progress_(std::move(progress)) {}

  /// Fills the volume, which is large enough and all zeros behind `start`, from `start` on. Holes
  /// stay holes.
  Outcome<void> import(Outside const& source, Volume_name const& volume, std::uint64_t start,
                       Note_down const& note_down);
  /// Writes the volume or snapshot. A file has its name when it is whole. What was copied of a
  /// snapshot stays when this fails, and the next one goes on there; of anything else it is
  /// removed. Errors: also refused (the unfinished one is of something else).
  Outcome<void> export_to(Volume_name const& volume, Outside const& target);
  /// What was copied by this object, and from where on.
  std::uint64_t copied_bytes() const { return copied_; }
  std::uint64_t start() const { return start_; }

 private:
  class Unfinished_file;
  Outcome<std::unique_ptr<client::Volume>> open(Volume_opener& opener, Volume_name const& name);
  Outcome<void> import_here(Outside const& source, client::Volume& volume,
                            Note_down const& note_down);
  Outcome<void> write_to(client::Volume& volume, std::uint64_t at, Slice piece);
  Outcome<void> export_file(Volume_name const& name, Outside const& target,
                            Unfinished_file& unfinished);
  Outcome<void> export_raw(client::Volume& volume, std::string const& path,
                           Note_down const& note_down);
  Outcome<void> export_disk(Volume_name const& name, Outside const& target);
  Outcome<void> copy_file(std::string const& from, std::string const& to);
  Outcome<std::uint64_t> size_of(Volume_name const& name);
  /// Copies between two descriptions of disks as qemu-img has them, a portion at a time.
  Outcome<void> convert(std::string const& from, std::string const& to, std::uint64_t all,
                        Note_down const& note_down);
  Outcome<void> run(std::vector<std::string> const& words);
  /// Serves volumes on a private socket while `work` runs.
  Outcome<void> serve_to(std::function<Outcome<void>(std::string const& socket)> const& work);

  Tool_session& session_;
  ploop::Progress progress_;
  std::uint64_t start_ = 0;
  std::uint64_t copied_ = 0;
};

}  // namespace pstorage::volume
