// One delta that nobody has open: read and changed cluster by cluster. For merge, grow, convert.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "blockdev/ploop/blocking_store.h"
#include "blockdev/ploop/cluster_runs.h"
#include "blockdev/ploop/format.h"

namespace pstorage::ploop {

/// Called with how much is done and how much there is, in clusters.
using Progress = std::function<void(std::uint64_t done, std::uint64_t all)>;

/// Changes keep the orderings of Ploop_image: data durable before the entries that lead to it.
/// A crash at any moment leaves a valid image, marked as in use. Memory: 4 bytes an entry.
class Offline_delta {
 public:
  /// Reads header and BAT. `raw_cluster_bytes` > 0: a raw image with clusters of that size.
  /// Errors: corrupt, busy when it is marked as in use; the line begins with `path`.
  static Outcome<Offline_delta> open(Blocking_store store, std::string path,
                                     std::uint32_t raw_cluster_bytes = 0);

  Header const& header() const { return header_; }
  bool is_raw() const { return is_raw_; }
  std::uint32_t entries() const { return static_cast<std::uint32_t>(clusters_.size()); }
  bool has(std::uint32_t index) const { return is_raw_ || clusters_[index] != 0; }
  std::uint64_t allocated() const;
  std::uint64_t place(std::uint32_t index) const { return header_.offset_of(clusters_[index]); }

  /// Marks it as in use, durably. Before the first change.
  Outcome<void> begin();
  /// Cluster `index` of the disk; it has one.
  Outcome<Slice> read(std::uint32_t index);
  /// Writes the whole cluster `index`: in place when it has one, else into a new one, whose entry
  /// is written by the next sync().
  Outcome<void> write(std::uint32_t index, Slice data);
  /// Gives its place up; the space returns with the next sync().
  void drop(std::uint32_t index);
  /// Everything written so far is durable, then the entries, durably.
  Outcome<void> sync();
  /// Makes the disk larger: moves data out of the way of the table, then the new header.
  Outcome<void> grow(std::uint64_t size_bytes);
  /// Moves clusters from the end of the file into its holes.
  Outcome<void> close_holes(Progress const& progress);
  /// Syncs, cuts off what is unused, marks it as closed.
  Outcome<void> finish();

  Blocking_store& store() { return store_; }

 private:
  Offline_delta(Blocking_store store, std::string path)
      : store_(std::move(store)), path_(std::move(path)) {}

  Outcome<void> load();
  Outcome<void> find_holes();
  Failure failed(std::string const& what, std::error_code const& code) const;
  Outcome<std::uint32_t> take_place();
  Outcome<void> write_page(std::uint32_t page);
  Outcome<void> write_header();
  Outcome<void> move(std::uint32_t index, std::uint32_t to);
  Outcome<void> clear_table_space(std::uint32_t first_cluster);
  Outcome<void> grow_raw(std::uint64_t size_bytes);
  std::uint32_t used_end() const;

  Blocking_store store_;
  std::string path_;
  bool is_raw_ = false;
  Header header_;
  std::vector<std::uint32_t> clusters_;
  std::set<std::uint32_t> dirty_pages_;
  Cluster_runs holes_;     // unused, their entries durably clear
  Cluster_runs dropped_;   // become holes with the next sync()
  std::uint32_t end_ = 0;  // behind the last cluster that was handed out
};

}  // namespace pstorage::ploop
