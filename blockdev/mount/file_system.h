// The cluster's name space and files as FUSE operations. Every operation is answered later; none
// waits inside.
#pragma once

#include "blockdev/mount/fuse_port.h"

// after fuse_port.h, which sets the version of libfuse's interface
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "blockdev/mount/disk_view.h"
#include "blockdev/mount/names.h"
#include "blockdev/mount/open_file.h"

namespace pstorage::mount {

struct Mount_options {
  Defaults defaults;
  Duration busy_patience = std::chrono::seconds(1);
};

/// Thread: the loop's.
class File_system final : public Ticker {
 public:
  File_system(client::Cluster& cluster, Clock& clock, Log& log, Mount_options const& options,
              std::function<void(File_id)> on_lost, Disk_view& disks);
  ~File_system() override;
  File_system(File_system const&) = delete;
  File_system& operator=(File_system const&) = delete;

  static fuse_lowlevel_ops operations();
  Disk_view& disks() { return disks_; }

  /// Flushes everything, gives all leases back, then calls `done`.
  void stop(std::function<void()> done);
  void on_tick() override;
  void wanted(proto::Lease_wanted const& wanted);

  // names.cc
  void lookup(fuse_req_t request, fuse_ino_t parent, char const* name);
  void make(fuse_req_t request, fuse_ino_t parent, char const* name, proto::File_type type,
            mode_t mode, char const* target);
  void remove(fuse_req_t request, fuse_ino_t parent, char const* name, bool directory);
  void rename(fuse_req_t request, fuse_ino_t from, char const* name, fuse_ino_t to,
              char const* new_name, unsigned flags);
  void link(fuse_req_t request, fuse_ino_t inode, fuse_ino_t parent, char const* name);
  void read_link(fuse_req_t request, fuse_ino_t inode);
  // attributes.cc
  void get_attributes(fuse_req_t request, fuse_ino_t inode);
  void set_attributes(fuse_req_t request, fuse_ino_t inode, struct stat const& wanted, int which,
                      fuse_file_info* info);
  void get_xattr(fuse_req_t request, fuse_ino_t inode, char const* name, std::size_t size);
  void set_xattr(fuse_req_t request, fuse_ino_t inode, char const* name, char const* value,
                 std::size_t size, int flags);
  void space(fuse_req_t request);
  // files.cc
  void create(fuse_req_t request, fuse_ino_t parent, char const* name, mode_t mode,
              fuse_file_info const& info);
  void open(fuse_req_t request, fuse_ino_t inode, fuse_file_info const& info);
  void release(fuse_req_t request, fuse_file_info const& info);
  void read(fuse_req_t request, std::size_t size, off_t offset, fuse_file_info const& info);
  void write(fuse_req_t request, fuse_ino_t inode, char const* data, std::size_t size, off_t offset,
             fuse_file_info const& info);
  void sync(fuse_req_t request, fuse_file_info const& info);
  void allocate(fuse_req_t request, int mode, off_t offset, off_t length,
                fuse_file_info const& info);
  void seek(fuse_req_t request, off_t offset, int whence, fuse_file_info const& info);
  // directories.cc
  void open_directory(fuse_req_t request, fuse_ino_t inode, fuse_file_info info);
  void read_directory(fuse_req_t request, std::size_t size, off_t offset,
                      fuse_file_info const& info, bool plus);
  void release_directory(fuse_req_t request, fuse_file_info const& info);

 private:
  struct Handle {
    Open_file* file;
    bool writes;
    std::uint32_t generation;
  };
  struct Directory;

  /// Asks the MDS; while somebody else has the file, again until the patience is over.
  void ask(proto::Mds_request request, std::function<void(Outcome<proto::Mds_reply>)> done);
  void ask_again(proto::Mds_request request, Time_point give_up,
                 std::function<void(Outcome<proto::Mds_reply>)> done);
  /// The inode as the MDS has it, corrected by what is open here. A missing one is ESTALE.
  void look_at(fuse_ino_t inode, std::function<void(int, proto::File)> done);

  void set_owner(fuse_req_t request, fuse_ino_t inode, proto::Inode_change change);
  void change_inode(fuse_req_t request, fuse_ino_t inode, proto::Inode_change change);
  void truncate(fuse_ino_t inode, std::uint64_t size, fuse_file_info const* info, Errno_done done);

  Open_file& file_of(File_id id);
  Open_file* find(File_id id);
  void forget_if_idle(File_id id);
  void file_was_removed(proto::File const& left);
  void open_handle(fuse_ino_t inode, int flags, std::function<void(int, fuse_file_info)> done);
  fuse_file_info info_of(Open_file& file, bool writes, int flags);
  void reply_created(fuse_req_t request, proto::File const& file, fuse_file_info const& info);
  void open_existing(fuse_req_t request, std::string const& path, fuse_file_info const& info);
  static Handle& handle_of(fuse_file_info const& info);

  fuse_entry_param entry_of(proto::File file);
  void reply_entry(fuse_req_t request, proto::File const& file);
  void reply_attributes(fuse_req_t request, proto::File file);
  void remember_size(std::uint64_t inode, std::uint64_t size);
  void fetch_page(fuse_req_t request, std::size_t size, off_t offset, Directory& directory,
                  bool plus);
  void reply_page(fuse_req_t request, std::size_t size, off_t offset, Directory& directory,
                  bool plus);

  client::Cluster& cluster_;
  Clock& clock_;
  Log& log_;
  Mount_options const options_;
  Disk_view& disks_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  File_environment environment_;
  std::map<File_id, std::unique_ptr<Open_file>> files_;
  /// What the kernel was last told of a file's size. An open that finds another one is refused with
  /// ESTALE: the kernel then looks it up again, and appends where the file really ends.
  std::unordered_map<std::uint64_t, std::uint64_t> told_sizes_;
  struct Again {
    Time_point at;
    std::function<void()> run;
  };
  std::vector<Again> again_;
  std::function<void()> stopped_;
  Time_point space_known_at_{};
  proto::Status_reply space_;
};

}  // namespace pstorage::mount
