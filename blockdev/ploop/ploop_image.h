// An open ploop image: a chain of deltas as one disk. Pure: it sees files through Image_store only.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "blockdev/ploop/barrier.h"
#include "blockdev/ploop/bat_writer.h"
#include "blockdev/ploop/cluster_space.h"
#include "blockdev/ploop/format.h"
#include "blockdev/ploop/image_map.h"
#include "core/env/executor.h"

namespace pstorage::ploop {

/// One delta of a chain.
struct Layer {
  std::unique_ptr<Image_store> store;
  bool is_raw = false;  // only the base may be: its bytes are the disk's
  Header header;        // filled in when the image is opened
};

/// What opening found out: open_image() makes it.
struct Loaded_image {
  std::vector<Layer> layers;  // [0] is the base
  Image_map map;
  bool is_writable = false;
  Cluster_space space;  // of the top, when writable
  Cluster_runs holes;   // clusters of the top that nobody refers to; their content is unknown
};

/// Counters since the image was opened.
struct Image_counters {
  std::uint64_t allocated = 0;   // clusters that got a place in the top
  std::uint64_t copied = 0;      // of these: with data of a lower delta
  std::uint64_t freed = 0;       // clusters given up by zero()
  std::uint64_t bat_writes = 0;  // pages
};

/// Orderings (facts/ploop.md 5.2): the file is extended durably before an entry may point there; a
/// new cluster's data and its entry go in any order, both before the write is answered; a copy of a
/// lower delta's data is durable before its entry is written; a freed cluster is punched, and
/// reused only when its cleared entry and the punch are durable. So at any moment the file is a
/// valid image whose clusters hold what was flushed or something newer.
///
/// A write into a cluster that the top already has goes straight to the store: no allocation, no
/// lock, no accounting. Requests for a cluster under allocation wait for it, in order.
/// After a failed flush or BAT write every further change is refused with that error: what the
/// file holds is no longer known.
/// Thread: the owner's loop. Callbacks: see client::Volume.
class Ploop_image final : public client::Volume {
 public:
  Ploop_image(Loaded_image loaded, std::string path, Executor& executor);
  ~Ploop_image() override;
  Ploop_image(Ploop_image const&) = delete;
  Ploop_image& operator=(Ploop_image const&) = delete;

  std::uint64_t size_bytes() const override { return size_; }
  bool is_read_only() const override { return !is_writable_; }
  std::string const& path() const override { return path_; }
  void read(std::uint64_t offset, std::uint64_t length, Read_done done) override;
  void write(std::uint64_t offset, std::vector<Slice> data, bool fua, Done done) override;
  /// A whole cluster of an image without snapshots gives its place up; in a chain it is punched
  /// and stays (its place hides the parent's).
  void zero(std::uint64_t offset, std::uint64_t length, bool only_whole_blocks, bool fua,
            Done done) override;
  void flush(Done done) override;
  /// hole: in no delta.
  void extents(std::uint64_t offset, std::uint64_t length, std::size_t extents_max,
               client::Extents_done done) override;
  /// Waits for all that is under way, trims the file and marks it closed; closes the stores.
  void close(Done done) override;
  std::string waiting_reason() const override { return {}; }

  std::uint32_t cluster_bytes() const { return cluster_bytes_; }
  std::size_t levels() const { return layers_.size(); }
  Header const& header() const { return layers_.back().header; }
  Image_map const& map() const { return map_; }
  Image_counters counters() const;

  /// Writes the header that says "open": the first act of a writable image, before any request.
  void begin(Done done);

  /// Makes the switch of push_layer() count: replaces the descriptor. An error says that it was not
  /// replaced.
  using Commit = std::function<void(Done done)>;
  /// The present top becomes a snapshot, `store` (an empty image of the same size and cluster size,
  /// already marked as open) the new top. The old top is complete, durable and marked as closed
  /// when `commit` is called. No change of the disk may be under way or come before `done`; reads
  /// may. After an error everything is as it was, unless the image is broken. Errors: commit's.
  void push_layer(std::unique_ptr<Image_store> store, Header const& header, Commit commit,
                  Done done);

  /// Copies into the top what `count` clusters of the disk from `first` on have in the delta right
  /// below it. What the top has already is newer and stays. Requests go on meanwhile; those for a
  /// cluster that is being copied wait for it. Done again, it copies nothing. No push_layer() may
  /// come before `done`. Errors: no_space, closed (the image is being closed), the stores'.
  void copy_up_from_below(std::uint32_t first, std::uint32_t count, Done done);
  /// Takes the delta right below the top out of the chain and closes its store. When `commit` is
  /// called everything that was in it alone is durable in the top. No request may be under way or
  /// come before `done`. After an error everything is as it was. Errors: refused (something is left
  /// in it), commit's.
  void drop_layer_below(Commit commit, Done done);

 private:
  /// A piece of the disk that lies in one place.
  struct Run {
    enum class Kind { zeros, data, busy } kind;
    std::uint64_t offset;  // of the disk
    std::uint64_t length;
    std::uint32_t index;  // cluster of the disk where it begins
    Level level;
    std::uint64_t place;  // offset in the delta's file
  };
  /// A cluster on its way into the top, or out of it.
  struct Allocation {
    std::uint32_t index = 0;
    std::uint32_t cluster = 0;  // its new place
    std::uint32_t within = 0;   // where the request's bytes begin
    std::uint32_t length = 0;   // of the request
    std::vector<Slice> data;    // empty: zeros
    bool fua = false;
    Done done;
    unsigned steps_left = 0;
    Result<void> result = success();
    std::vector<std::function<void()>> waiting;
  };
  struct Join;
  struct Copy_run;
  struct Switch {
    Layer layer;
    Commit commit;
    Done done;
    bool is_under_way = false;
  };

  Image_store& top() { return *layers_.back().store; }
  std::uint64_t place_of(Level level, std::uint32_t cluster, std::uint64_t within) const;
  std::uint64_t cluster_length(std::uint32_t index) const;
  /// The run that begins at `offset`, at most to the end of its cluster or to `end`.
  Run run_at(std::uint64_t offset, std::uint64_t end) const;
  /// The same, through all clusters that follow it in the file, too.
  Run long_run_at(std::uint64_t offset, std::uint64_t end) const;
  bool is_settled_in_top(Run const& run) const {
    return run.kind == Run::Kind::data && run.level == top_level_;
  }
  std::vector<Slice> zeros(std::uint64_t length);
  void answer(Done done, Result<void> result);
  Result<void> writable() const;

  // Requests for one run.
  void read_run(Run const& run, Read_done done);
  void write_run(Run const& run, std::vector<Slice> data, bool fua, Done done);
  void write_top(Run const& run, std::vector<Slice> data, bool fua, Done done);
  void answer_hole(bool fua, Done done);
  bool entries_are_durable() const;
  Done then_durable(Done done);
  void zero_run(Run const& run, bool only_whole_blocks, bool fua, Done done);
  Run rerun(Run const& run) const { return run_at(run.offset, run.offset + run.length); }

  // Allocation: image_allocate.cc.
  void wait_for(std::uint32_t index, std::function<void()> retry);
  Allocation& make_busy(std::uint32_t index);
  void start_allocation(Run const& run, std::vector<Slice> data, bool fua, Done done);
  void find_place(Allocation& allocation);
  void place_new(Allocation& allocation);
  void copy_up(Allocation& allocation);
  void write_copy(Allocation& allocation, std::vector<Slice> data);
  void write_entry(Allocation& allocation);
  void step_done(Allocation& allocation, Result<void> const& result);
  void finish(Allocation& allocation);
  void extend();
  void extended(std::uint32_t end, Result<void> const& result);
  void serve_space();

  // A new top: image_switch.cc.
  void advance_switch();
  void close_top(Done done);
  void switched(Result<void> const& committed);

  // The delta below the top goes: image_merge.cc.
  bool is_below_top(std::uint32_t index) const { return map_.level(index) + 1 == top_level_; }
  void advance_copies(std::shared_ptr<Copy_run> const& run);
  void copy_one(std::shared_ptr<Copy_run> const& run, std::uint32_t index);
  void layer_dropped(Done const& done);

  // Freed clusters, closing: image_clean.cc.
  void free_cluster(std::uint32_t index, bool fua, Done done);
  void start_cleaning();
  void punch_from(std::shared_ptr<Cluster_runs> runs, std::uint32_t start);
  void cleaned(Cluster_runs const& runs, Result<void> const& result);
  void advance_closing();
  void close_stores(std::size_t level, Result<void> const& result);
  std::uint32_t used_end() const;
  void break_with(std::error_code why);

  std::vector<Layer> layers_;
  Image_map map_;
  Level top_level_;
  bool const is_writable_;
  std::uint32_t const cluster_bytes_;
  unsigned const cluster_shift_;
  std::uint64_t const size_;
  std::string const path_;
  Executor& executor_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  Slice zeros_;

  Barrier barrier_;
  Bat_writer bat_;
  std::uint64_t flushing_entries_ = 0;  // BAT writes that the flush under way covers
  std::uint64_t durable_entries_ = 0;
  Cluster_space space_;
  std::unordered_map<std::uint32_t, std::unique_ptr<Allocation>> busy_;
  std::deque<Allocation*> needing_space_;
  bool extending_ = false;

  Cluster_runs holes_;  // of the top: unused, of unknown content; their entries are clear
  bool cleaning_ = false;

  std::error_code broken_;  // every change is refused with this
  Done closing_;
  std::unique_ptr<Switch> switch_;
  bool shutting_ = false;
  Image_counters counters_;
};

}  // namespace pstorage::ploop
