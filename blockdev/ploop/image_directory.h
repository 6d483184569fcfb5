// The directory a virtual disk lies in: on a local disk, later in the cluster.
#pragma once

#include <memory>
#include <string>

#include "blockdev/ploop/blocking_store.h"
#include "core/env/disk.h"
#include "core/env/executor.h"

namespace pstorage::ploop {

/// Names are relative to the directory, or absolute. Every call waits. Thread: the loop's.
/// Errors carry one line for a person.
class Image_directory {
 public:
  virtual ~Image_directory() = default;

  /// An image that is there. Errors: not_found, the system's.
  virtual Outcome<Blocking_store> open(std::string const& name) = 0;
  /// As open(), but it is only read: others may be reading it, too.
  virtual Outcome<Blocking_store> open_to_read(std::string const& name) { return open(name); }
  /// Has the file other names, in directories of other disks? Then it must not change.
  virtual Outcome<bool> is_shared(std::string const& name) = 0;
  /// A new, empty file; its name is durable. Errors: exists, the system's.
  virtual Outcome<Blocking_store> create(std::string const& name) = 0;
  virtual bool exists(std::string const& name) = 0;
  /// Durable on success. A file that is not there is success.
  virtual Outcome<void> remove(std::string const& name) = 0;
  /// A small file (a descriptor). Errors: not_found, too_large.
  virtual Outcome<std::string> read_text(std::string const& name, std::size_t bytes_max) = 0;
  /// Replaces it: after a crash it is the old or the new one, whole. Durable on success.
  virtual Outcome<void> replace_text(std::string const& name, std::string const& text) = 0;
  /// The name as other programs would call it.
  virtual std::string path_of(std::string const& name) const = 0;
};

/// Over the Disk seam: a real file system (rooted at "/") or a simulated one.
class Disk_directory final : public Image_directory {
 public:
  /// `directory`: where relative names begin, from the root of `disk`. The store's callbacks come
  /// from `executor`, of which `turn` runs one piece of work.
  Disk_directory(Disk& disk, std::string directory, Executor& executor, Turn turn)
      : disk_(disk),
        directory_(std::move(directory)),
        executor_(executor),
        turn_(std::move(turn)) {}

  Outcome<Blocking_store> open(std::string const& name) override;
  Outcome<Blocking_store> create(std::string const& name) override;
  /// Never: local disks have no clones.
  Outcome<bool> is_shared(std::string const&) override { return false; }
  bool exists(std::string const& name) override { return disk_.exists(resolve(name)); }
  Outcome<void> remove(std::string const& name) override;
  Outcome<std::string> read_text(std::string const& name, std::size_t bytes_max) override;
  Outcome<void> replace_text(std::string const& name, std::string const& text) override;
  std::string path_of(std::string const& name) const override { return "/" + resolve(name); }

 private:
  std::string resolve(std::string const& name) const;
  Outcome<Blocking_store> open_as(std::string const& name, Open_mode mode);
  Result<void> sync_parent(std::string const& name);

  Disk& disk_;
  std::string directory_;
  Executor& executor_;
  Turn turn_;
};

}  // namespace pstorage::ploop
