// A virtual disk at rest: its descriptor and deltas, and what can be done with them while nobody
// has it open.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "blockdev/ploop/check.h"
#include "blockdev/ploop/descriptor.h"
#include "blockdev/ploop/image_directory.h"
#include "blockdev/ploop/offline_delta.h"
#include "blockdev/ploop/ploop_image.h"

namespace pstorage::ploop {

struct Disk_format {
  Version version = Version::v2;
  std::uint32_t cluster_bytes = cluster_bytes_default;
  bool is_raw = false;
  bool is_preallocated = false;
};

/// Every operation that changes something leaves, after a crash at any moment, a disk with the
/// same content: files first, then the descriptor as a whole, then what is no longer named there
/// is removed. At most an unnamed file stays behind.
/// The caller holds the disk's lock. Thread: the directory's. Errors carry a line for a person.
class Virtual_disk {
 public:
  /// Makes image `file` and descriptor `name` beside it. Nothing is there yet.
  static Outcome<Virtual_disk> create(Image_directory& directory, std::string const& name,
                                      std::string const& file, std::uint64_t size_bytes,
                                      Disk_format const& format);
  /// Makes a descriptor for a base image that lost its own. `raw_cluster_bytes` > 0: it is raw.
  static Outcome<Virtual_disk> restore(Image_directory& directory, std::string const& name,
                                       std::string const& file, std::uint32_t raw_cluster_bytes);
  static Outcome<Virtual_disk> open(Image_directory& directory, std::string const& name);

  Descriptor const& descriptor() const { return descriptor_; }
  /// Can one more snapshot be made? Errors: too_large.
  Outcome<void> may_snapshot() const;
  /// The header of the top; of a raw disk: one that has its sizes, and version v2.
  Outcome<Header> header();

  /// The layers up to `guid`, for open_image(). Not for a raw disk without snapshots.
  Outcome<std::vector<Layer>> layers(std::string const& guid);

  /// The present state becomes snapshot `guid`. Errors: exists, too_large (126 snapshots).
  Outcome<void> snapshot(std::string const& guid, Random& random, std::string const& name = {},
                         std::string const& created = {});
  /// An empty delta like the top, which nothing names yet; its file. For the snapshot of a disk
  /// that somebody has open.
  Outcome<std::string> make_top_file(Random& random);
  /// Throws the top away: the disk goes on from snapshot `guid`. Errors: not_found.
  Outcome<void> switch_to(std::string const& guid, Random& random);
  /// Deletes snapshot `guid`; merges it with its only child. Errors: not_found, refused.
  Outcome<void> remove(std::string const& guid, Random& random, Progress const& progress);
  /// Merges delta `guid` into its parent; a parent that other disks share is copied first. Errors:
  /// not_found, refused (no parent, or it has other children).
  Outcome<void> merge(std::string const& guid, Random& random, Progress const& progress);
  /// Errors: refused for a smaller size.
  Outcome<void> grow(std::uint64_t size_bytes);
  /// Gives clusters of zeros up where no lower delta is hidden by them, and fills the file's holes.
  Outcome<void> compact(Progress const& progress);

  /// convert.cc. No snapshots may exist (format) or all deltas are converted (version).
  Outcome<void> convert_format(bool to_raw, bool to_preallocated, Random& random,
                               Progress const& progress);
  Outcome<void> convert_version(Version version);

 private:
  Virtual_disk(Image_directory& directory, std::string name, Descriptor descriptor)
      : directory_(&directory), name_(std::move(name)), descriptor_(std::move(descriptor)) {}

  Outcome<Delta> need(std::string const& guid) const;
  Outcome<Offline_delta> open_delta(Delta const& delta);
  Outcome<void> save();
  Outcome<void> unshare(Delta const& delta, Random& random, Progress const& progress);
  Outcome<void> copy_into(Offline_delta& from, Offline_delta& to, bool drops_zeros,
                          Progress const& progress);
  Outcome<void> preallocate(Progress const& progress);

  Image_directory* directory_;
  std::string name_;
  Descriptor descriptor_;
};

/// Version of one image file, in place; goes on with a conversion that was interrupted. The old
/// table is kept in `file`.idx until the new one is durable.
Outcome<void> convert_image_version(Image_directory& directory, std::string const& file,
                                    Version version);

}  // namespace pstorage::ploop
