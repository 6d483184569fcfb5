// One file of the cluster that this host has open: its lease, its data, its size and time until the
// MDS has been told.
#pragma once

#include <sys/stat.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "blockdev/mount/file_lease.h"
#include "core/client/cluster.h"

namespace pstorage::mount {

/// 0 or an errno.
using Errno_done = std::function<void(int)>;
using Data_done = std::function<void(int, std::vector<Slice>)>;
using Offset_done = std::function<void(int, std::uint64_t)>;

/// What all open files share.
struct File_environment {
  client::Cluster& cluster;
  Clock& clock;
  Log& log;
  Duration busy_patience;  // how long somebody else's lease is waited for
  /// The lease was lost: pages of the file that the kernel keeps must go.
  std::function<void(File_id)> on_lost;
};

/// Thread: the loop's. Callbacks may run inside the call. Lives until can_go().
class Open_file {
 public:
  Open_file(File_environment& environment, File_id id);
  /// A file that was just created, with its lease.
  Open_file(File_environment& environment, client::Opened_file opened);
  ~Open_file();
  Open_file(Open_file const&) = delete;
  Open_file& operator=(Open_file const&) = delete;

  File_id id() const { return id_; }
  /// A handle is open once its lease is there. Errors: EBUSY, ESTALE, ETIMEDOUT.
  void open(bool writes, Errno_done done);
  void close(bool writes);
  /// At an open: is what the kernel has cached of it still true? From then on it is.
  bool may_keep_cache();
  bool has_lease() const { return lease_.hold() != Hold::none; }
  std::uint32_t generation() const { return lease_.generation(); }

  /// Of a handle made in `generation`. Short at the end of the file.
  void read(std::uint32_t generation, std::uint64_t offset, std::uint64_t length, Data_done done);
  /// Acknowledged when every replica has it; the file grows then.
  void write(std::uint32_t generation, std::uint64_t offset, Slice data, Errno_done done);
  /// Durable on every replica, the size at the MDS.
  void sync(std::uint32_t generation, Errno_done done);
  /// Needs a writer. What is cut off reads as zeros if the file grows again.
  void truncate(std::uint32_t generation, std::uint64_t size, Errno_done done);
  /// Makes a range read as zeros and gives its space back; the file grows unless `keep_size`.
  void zero(std::uint32_t generation, std::uint64_t offset, std::uint64_t length, bool keep_size,
            Errno_done done);
  /// SEEK_DATA (`hole` false) or SEEK_HOLE from `offset`. Errors: ENXIO.
  void seek(std::uint32_t generation, std::uint64_t offset, bool hole, Offset_done done);

  void wanted(proto::Lease_wanted const& wanted);
  void removed();
  void stop();
  void on_tick();
  /// No users, no lease: may be forgotten.
  bool can_go() const;

  /// Its size and time are here, not at the MDS.
  bool is_writer() const { return lease_.hold() == Hold::exclusive; }
  /// What the MDS says of the file, corrected by what only we know yet.
  void correct(proto::File& file) const;
  /// Times set by the user; true when they stay here until the size is told.
  bool set_modified(timespec const& time);
  std::uint64_t size() const { return size_; }
  /// As the MDS said last. Only while is_writer().
  proto::File const& known() const { return known_; }
  void know(proto::File const& file) { known_ = file; }

 private:
  using Generation = std::optional<std::uint32_t>;  // of a handle; none: one being opened
  struct Waiting {
    bool writes = false;
    Generation generation;
    std::function<void(int)> go;
  };

  bool is_dead(Generation generation) const {
    return generation && *generation != lease_.generation();
  }
  void with_lease(Generation generation, bool writes, std::function<void(int)> go);
  bool may_start(bool writes, bool opens) const;
  void end_operation();
  void pump();
  void run_waiting();
  void take(Hold hold);
  void taken(Hold hold, Outcome<client::Opened_file> opened);
  void take_over_first();
  void refused(Hold hold, Failure const& why);
  void give_back();
  void check_alive();
  void hold_file(client::Opened_file opened);
  void fail_waiting(int why);
  proto::Inode_change change() const;
  void clear_tail();
  void zero_from(std::uint64_t offset, std::uint64_t end, Errno_done done);
  void seek_from(std::uint64_t offset, bool hole, Offset_done done);
  void grow(std::uint64_t size);
  void touch();
  std::string path() const { return "@" + std::to_string(id_.value); }

  File_environment& environment_;
  File_id const id_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  File_lease lease_;
  std::unique_ptr<client::File_volume> volume_;
  std::vector<Waiting> waiting_;
  bool running_waiting_ = false;

  proto::File known_;
  std::uint64_t size_ = 0;
  std::uint64_t chunk_bytes_ = 0;
  std::uint64_t tail_end_ = 0;  // bytes from size_ to here may be left-overs; 0: none
  timespec modified_{};
  bool size_changed_ = false;  // the MDS does not know it
  bool time_changed_ = false;
  bool removed_ = false;
  bool cache_is_valid_ = false;
};

}  // namespace pstorage::mount
