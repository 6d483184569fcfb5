// The replicated log of a cluster with one metadata server: segment files on its disk.
#pragma once

#include <map>
#include <memory>

#include "core/env/disk.h"
#include "core/env/random.h"
#include "core/log.h"
#include "mds/log/replicated_log.h"

namespace pstorage::mds {

struct Single_log_options {
  std::uint64_t segment_bytes = 8u << 20;  // multiple of 4096, more than the largest entry
};

/// Committed = fdatasync of the frame has succeeded. One frame a batch, one batch under way: so a
/// damaged frame with a whole one behind it is rot, not a torn tail, and refuses to start.
class Single_log final : public Replicated_log {
 public:
  Single_log(Disk& disk, Random& random, Log& log, Single_log_options options);
  ~Single_log() override;

  Outcome<void> start(std::uint64_t applied, Log_listener& listener) override;
  Outcome<std::uint64_t> propose(std::string entry) override;
  void flush() override;
  void tick() override;
  void read_barrier(Barrier_done done) override;
  void cut(std::uint64_t index) override;
  bool is_leader() const override { return listener_ != nullptr && !failed_; }
  std::uint64_t term() const override { return 1; }
  std::uint64_t committed() const override { return committed_; }
  std::uint64_t commits() const override { return commits_; }

 private:
  struct Segment {
    std::uint64_t sequence = 0;
    std::uint64_t bytes = 0;
    std::uint64_t used = 0;  // where the next frame goes
    std::uint64_t last_index = 0;
    std::unique_ptr<File> file;
  };

  // log_recovery.cc
  Outcome<void> recover(std::uint64_t applied);
  Outcome<std::vector<std::uint64_t>> contiguous_segments();
  Outcome<void> load_segment(std::uint64_t sequence, bool is_last, std::uint64_t applied,
                             std::uint64_t& next_index);
  Outcome<std::uint64_t> load_frames(std::uint64_t sequence, Bytes content, std::uint64_t applied,
                                     std::uint64_t& next_index,
                                     std::vector<Committed_entry>& entries);
  Outcome<void> cut_tail();

  Outcome<void> create_first_segment();
  Result<std::unique_ptr<File>> write_empty_segment(std::uint64_t sequence);
  void prepare_next();
  void next_failed(Failure const& why);
  void write_batch();
  void batch_synced(Result<void> result);
  void switch_segment();
  void fail(Failure const& why);

  Disk& disk_;
  Random& random_;
  Log& log_;
  Single_log_options options_;
  Log_listener* listener_ = nullptr;

  std::uint64_t salt_ = 0;
  std::uint64_t committed_ = 0;
  std::uint64_t commits_ = 0;
  std::map<std::uint64_t, std::uint64_t> closed_;  // full segments: sequence -> last index
  std::vector<std::uint64_t> unused_;              // during recovery: empty ones behind the last
  Segment current_;
  Segment next_;  // prepared: pre-written, durable
  bool next_ready_ = false;
  bool next_under_way_ = false;
  bool full_ = false;  // the disk had no room for another segment
  bool failed_ = false;

  std::vector<std::string> pending_;    // proposed, not yet written
  std::uint64_t pending_payload_ = 0;   // bytes of their frame's payload
  std::vector<std::string> in_flight_;  // written, sync under way
  std::vector<std::byte> frame_;        // of in_flight_
  // Completions of the Disk (not of a File) may outlive this object.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pstorage::mds
