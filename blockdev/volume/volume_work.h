// What the command line does with volumes, in blocking style. Whoever changes a volume holds its
// lease: of the file of a raw volume, of the descriptor of a disk. So two of them, or one and a
// server, never both succeed.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "blockdev/ploop/check.h"
#include "blockdev/ploop/virtual_disk.h"
#include "blockdev/volume/cluster_directory.h"
#include "blockdev/volume/limits.h"
#include "blockdev/volume/names.h"
#include "blockdev/volume/tool_session.h"

namespace pstorage::volume {

struct New_volume {
  Volume_name name;
  std::uint64_t size_bytes = 0;
  bool is_raw = false;
  std::uint32_t cluster_bytes = ploop::cluster_bytes_default;
  proto::Attributes attributes;  // unset: the directory's
};

/// One line of a listing.
struct Listed_volume {
  std::string name;
  proto::File file;  // of a disk: its directory
  bool is_raw = false;
  std::uint64_t size_bytes = 0;
  std::uint64_t mapped_bytes = 0;  // chunks; of a disk: of all its files
};

/// What a volume takes.
struct Volume_usage {
  std::uint64_t virtual_bytes = 0;
  std::uint64_t allocated_bytes = 0;  // in clusters or blocks that hold something, one replica
  std::uint64_t exclusive_bytes = 0;  // of these: in files that no other volume shares
};

/// A disk at rest, with its lock.
class Offline_disk {
 public:
  /// Takes the lock and brings what a crash left to rest. Errors: busy, not_found, corrupt.
  static Outcome<std::unique_ptr<Offline_disk>> open(Tool_session& session, Volume_name const& name,
                                                     Duration busy_patience = Duration{0});
  ploop::Virtual_disk& disk() { return *disk_; }
  Cluster_directory& directory() { return directory_; }
  Outcome<void> close() { return directory_.close(); }

 private:
  Offline_disk(Tool_session& session, std::string path)
      : session_(session), directory_(session, std::move(path)) {}
  Outcome<void> settle();
  Outcome<void> recover_top(std::vector<ploop::Delta> const& chain);
  Outcome<void> sweep();

  Tool_session& session_;
  Cluster_directory directory_;
  std::unique_ptr<ploop::Virtual_disk> disk_;
};

class Volume_work {
 public:
  explicit Volume_work(Tool_session& session) : session_(session) {}

  // volume_work.cc
  Outcome<proto::File> look_up(Volume_name const& name);
  Outcome<void> create(New_volume const& volume);
  Outcome<std::vector<Listed_volume>> list();
  Outcome<void> rename(Volume_name const& from, Volume_name const& to);
  /// What an unfinished import says about itself; empty: it is none any more.
  Outcome<void> note_import(Volume_name const& name, std::string const& note);
  Outcome<Volume_usage> usage(Volume_name const& name);
  struct Checked {
    std::string file;
    ploop::Check_report report;
  };
  Outcome<std::vector<Checked>> check(Volume_name const& name, bool repairs);

  /// Stores the limits and tells whoever has the volume open.
  Outcome<void> set_limits(Volume_name const& name, Limits const& limits);
  /// From now on, for so long, a second host's server may take the volume over while it is in use.
  Outcome<void> allow_migration(Volume_name const& name, Duration how_long);

  // volume_snapshots.cc
  Outcome<ploop::Descriptor> descriptor(Volume_name const& name);
  Outcome<void> snapshot(Volume_name const& name, std::string const& snapshot,
                         std::string const& created);
  Outcome<void> roll_back(Volume_name const& name);
  Outcome<void> remove_snapshot(Volume_name const& name, ploop::Progress const& progress);
  Outcome<void> clone(Volume_name const& source, Volume_name const& target,
                      std::string const& created);
  Outcome<void> resize(Volume_name const& name, std::uint64_t size_bytes, bool may_shrink);

  // volume_trash.cc
  struct Trashed {
    std::string id;    // its name in the trash
    std::string name;  // what it was called
    std::uint64_t deleted_ms = 0;
    std::uint64_t size_bytes = 0;
  };
  /// Moves it to the trash, or (`now`) deletes it.
  Outcome<void> remove(Volume_name const& name, bool now);
  Outcome<std::vector<Trashed>> trash();
  Outcome<void> undelete(std::string const& what, std::string const& new_name);
  /// Deletes what was deleted `older_than` ago; how many.
  Outcome<std::uint64_t> purge(Duration older_than);
  Outcome<void> set_retention(Duration retention);
  Outcome<Duration> retention();

 private:
  /// The lease of a volume of either kind.
  struct Held;
  Outcome<std::unique_ptr<Held>> hold(Volume_name const& name);
  Outcome<void> make_directory(std::string const& path, proto::Attributes const& attributes,
                               bool may_exist);
  Outcome<void> remove_path(std::string const& path);
  Outcome<void> remove_tree(std::string const& path);
  Outcome<void> move(std::string const& from, std::string const& to,
                     proto::Lease_guard const* guard);
  Outcome<void> list_below(std::string const& directory, std::vector<Listed_volume>& found);
  /// Fills a new directory beside `target` and gives it its name at the end: a volume is there as a
  /// whole or not at all.
  Outcome<void> build(Volume_name const& target, proto::Attributes const& attributes,
                      std::function<Outcome<std::uint64_t>(Cluster_directory&)> const& fill);
  Outcome<void> note_size(Volume_name const& name, std::uint64_t size_bytes,
                          proto::Lease_guard const* guard);
  Outcome<void> snapshot_in_use(Volume_name const& name, std::string const& guid,
                                std::string const& snapshot, std::string const& created);
  Outcome<void> note_merge(Volume_name const& name, std::string const& note);
  Outcome<void> remove_in_use(Volume_name const& name, std::string const& guid,
                              ploop::Progress const& progress);
  Outcome<bool> has_holder(std::string const& path);
  Outcome<void> link_chain(Volume_name const& source, std::string const& guid,
                           Cluster_directory& target, std::vector<ploop::Delta>& chain);
  Outcome<void> grow(Volume_name const& name, std::uint64_t size_bytes, Duration busy_patience);

  Tool_session& session_;
};

}  // namespace pstorage::volume
