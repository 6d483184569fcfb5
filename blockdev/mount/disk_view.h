// MOUNTPOINT/.disks: the volumes of the cluster as raw files. A volume is open while its file is.
#pragma once

#include "blockdev/mount/fuse_port.h"

// after fuse_port.h, which sets the version of libfuse's interface
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "blockdev/mount/names.h"
#include "blockdev/volume/volume_opener.h"
#include "core/env/clock.h"

namespace pstorage::mount {

/// Inode numbers of the view are those of the MDS with this bit, which no inode has.
inline constexpr std::uint64_t view_bit = 1ull << 62;
/// Snapshots have no inode: they are numbered, with this bit as well.
inline constexpr std::uint64_t snapshot_bit = 1ull << 61;
inline constexpr bool is_view(fuse_ino_t inode) { return (inode & view_bit) != 0; }
inline constexpr char const* view_name = ".disks";

/// Thread: the loop's. Has a session with the MDS of its own: its leases are not those of the files
/// below the mount point, so that one process cannot take a volume away from itself.
class Disk_view final : public Ticker {
 public:
  Disk_view(client::Cluster& cluster, Executor& executor, Clock& clock, Log& log,
            Defaults const& defaults, Duration busy_patience);
  ~Disk_view() override;
  Disk_view(Disk_view const&) = delete;
  Disk_view& operator=(Disk_view const&) = delete;

  void on_tick() override;
  /// Flushes and gives back every volume, then calls `done`.
  void stop(std::function<void()> done);

  /// ".disks" itself.
  void look_up_root(fuse_req_t request);
  void lookup(fuse_req_t request, fuse_ino_t parent, char const* name);
  void get_attributes(fuse_req_t request, fuse_ino_t inode);
  void open(fuse_req_t request, fuse_ino_t inode, fuse_file_info const& info);
  void release(fuse_req_t request, fuse_file_info const& info);
  void read(fuse_req_t request, std::size_t size, off_t offset, fuse_file_info const& info);
  void write(fuse_req_t request, char const* data, std::size_t size, off_t offset,
             fuse_file_info const& info);
  void sync(fuse_req_t request, fuse_file_info const& info);
  void allocate(fuse_req_t request, int mode, off_t offset, off_t length,
                fuse_file_info const& info);
  void seek(fuse_req_t request, off_t offset, int whence, fuse_file_info const& info);
  void open_directory(fuse_req_t request, fuse_ino_t inode, fuse_file_info info);
  void read_directory(fuse_req_t request, std::size_t size, off_t offset,
                      fuse_file_info const& info, bool plus);
  void release_directory(fuse_req_t request, fuse_file_info const& info);

 private:
  struct Disk;
  struct Directory;
  struct Entry {
    bool is_directory = false;
    std::uint64_t size = 0;
  };

  void ask(proto::Mds_request request, std::function<void(Outcome<proto::Mds_reply>)> done);
  Entry entry_of(proto::File const& file) const;
  struct stat stat_of(fuse_ino_t inode, Entry const& entry) const;
  /// The MDS's id of a view inode; of a snapshot, its volume's.
  std::uint64_t id_of(fuse_ino_t inode) const;
  fuse_ino_t inode_of(std::string const& name, std::uint64_t id);
  void opened(fuse_ino_t inode, Outcome<std::unique_ptr<client::Volume>> volume);
  void close_if_idle(fuse_ino_t inode);
  void answer_open(Disk& disk, int why);
  static Disk& disk_of(fuse_file_info const& info);
  void seek_from(fuse_req_t request, Disk& disk, std::uint64_t offset, bool hole);

  client::Cluster& cluster_;
  Executor& executor_;
  Log& log_;
  Defaults const defaults_;
  Duration const busy_patience_;
  volume::Volume_opener opener_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  /// Names of volumes and their directories by inode, as they were looked up last.
  std::unordered_map<std::uint64_t, std::string> names_;
  std::map<std::string, fuse_ino_t> snapshots_;             // by name, "vm1@monday"
  std::unordered_map<std::uint64_t, std::uint64_t> bases_;  // of snapshots: the volume's id
  std::map<fuse_ino_t, std::unique_ptr<Disk>> disks_;
  std::function<void()> stopped_;
};

}  // namespace pstorage::mount
