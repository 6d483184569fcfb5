// Disks from and to files outside the cluster, and other NBD servers. Raw files are copied here;
// for everything else the volume is served on a private socket to qemu-img or nbdcopy.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "blockdev/volume/volume_opener.h"
#include "blockdev/volume/volume_work.h"

namespace pstorage::volume {

/// What is to be read or written outside.
struct Outside {
  std::string where;   // path or NBD URI
  std::string format;  // raw, qcow2, vmdk, ...; "nbd"; "ploop": a directory with a disk
  std::uint64_t size_bytes = 0;

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

  /// Fills the volume, which is large enough and all zeros. Holes stay holes.
  Outcome<void> import(Outside const& source, Volume_name const& volume);
  /// Writes the volume or snapshot. A target that could not be finished is removed.
  Outcome<void> export_to(Volume_name const& volume, Outside const& target);

 private:
  Outcome<std::unique_ptr<client::Volume>> open(Volume_opener& opener, Volume_name const& name);
  Outcome<void> import_raw(Outside const& source, client::Volume& volume);
  Outcome<void> export_raw(client::Volume& volume, Outside const& target);
  Outcome<void> export_disk(Volume_name const& name, Outside const& target);
  Outcome<void> copy_file(std::string const& from, std::string const& to);
  /// Serves the volume while `program`, given its URI, runs. Errors: what the program says.
  Outcome<void> serve_to(
      Volume_name const& name,
      std::function<std::vector<std::string>(std::string const& uri)> const& program);

  Tool_session& session_;
  ploop::Progress progress_;
};

}  // namespace pstorage::volume
