// A volume that is being served: passes requests on to its disk, and can be stopped for a moment
// while the disk gets a snapshot or somebody else works on it.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "blockdev/volume/disk_files.h"
#include "blockdev/volume/limits.h"
#include "core/env/clock.h"
#include "core/log.h"

namespace pstorage::volume {

class Volume_opener;

/// Thread: the owner's loop. What client::Volume promises holds over snapshots and while the disk
/// is lent: requests wait then, in order.
class Served_volume final : public client::Volume {
 public:
  Served_volume(Volume_opener& opener, Volume_name name, Disk_parts parts);
  /// One that another client has, in a migration: its first request asks for it.
  Served_volume(Volume_opener& opener, Volume_name name, std::uint64_t size_bytes,
                std::string migration);
  ~Served_volume() override;
  Served_volume(Served_volume const&) = delete;
  Served_volume& operator=(Served_volume const&) = delete;

  std::uint64_t size_bytes() const override {
    return parts_.disk ? parts_.disk->size_bytes() : size_;
  }
  bool is_read_only() const override { return is_read_only_; }
  void set_size(std::uint64_t bytes) override;
  std::string const& path() const override { return path_; }
  void read(std::uint64_t offset, std::uint64_t length, client::Read_done done) override;
  void write(std::uint64_t offset, std::vector<Slice> data, bool fua, client::Done done) override;
  void zero(std::uint64_t offset, std::uint64_t length, bool only_whole_blocks, bool fua,
            client::Done done) override;
  void flush(client::Done done) override;
  void extents(std::uint64_t offset, std::uint64_t length, std::size_t extents_max,
               client::Extents_done done) override;
  void close(client::Done done) override;
  std::string waiting_reason() const override;

  /// Is `leased` the file whose lease stands for this volume?
  bool is_locked_by(client::Volume const& leased) const {
    return &leased == (parts_.lock ? parts_.lock.get() : parts_.disk.get());
  }
  /// What another client asks. Errors: refused, busy (another such operation is under way).
  void asked(proto::Holder_request const& request, client::Cluster::Holder_answer answer);
  void on_tick();

 private:
  enum class Gate { open, no_changes, closed };
  struct Snapshot_run;
  struct Merge_run;

  client::Done counted(client::Done done);
  void changed();  // a request has ended: whoever waits for quiet may go on
  void hold(std::function<void()> request);
  void let_go();
  bool may_change() const { return gate_ == Gate::open && held_.empty(); }
  bool may_read() const { return gate_ != Gate::closed && held_.empty(); }
  void end_operation(Outcome<void> const& result);
  void reload_limits(client::Cluster::Holder_answer answer);
  /// False: `request` waits until it may go, behind those that wait already.
  template <typename Request>
  bool admit(std::uint64_t bytes, Request&& request);
  void release_throttled();

  // Snapshot: served_snapshot.cc.
  void take_snapshot(proto::Take_snapshot const& request);
  void snapshot_top_opened(std::shared_ptr<Snapshot_run> const& run);
  void snapshot_header_read(std::shared_ptr<Snapshot_run> const& run, Slice const& bytes);
  void snapshot_descriptor_written(std::shared_ptr<Snapshot_run> const& run);
  void snapshot_quiet(std::shared_ptr<Snapshot_run> const& run);
  void commit_descriptor(std::string const& written_at, client::Done done);
  void snapshot_done(std::shared_ptr<Snapshot_run> const& run, Result<void> const& result);
  void snapshot_failed(std::shared_ptr<Snapshot_run> const& run, Failure const& why);

  // A snapshot goes: served_merge.cc.
  void look_at_merge(std::map<std::string, std::string> const& properties);
  void note_merge(std::string const& text);
  void advance_merge();
  void end_merge(std::string const& why);
  void copy_some(std::shared_ptr<Merge_run> const& run);
  void begin_drop(std::shared_ptr<Merge_run> const& run);
  void drop_quiet(std::shared_ptr<Merge_run> const& run);
  void dropped(std::shared_ptr<Merge_run> const& run, Result<void> const& result);
  void drop_failed(std::shared_ptr<Merge_run> const& run, std::error_code why);

  // Lending.
  void lend();
  void lend_quiet();
  void lent(Result<void> const& closed);
  void take_back();

  // Migration: served_migration.cc.
  void hand_over(std::string const& migration);
  void handed_over(Result<void> const& closed);
  void fetch();
  void fetch_asked(Outcome<void> const& answer);
  void fetched(Outcome<Disk_parts> parts);
  void end_fetch();

  Volume_opener& opener_;
  Volume_name const name_;
  std::string const path_;
  bool const is_read_only_;
  Disk_parts parts_;
  std::uint64_t size_ = 0;  // while the disk is lent
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);

  Gate gate_ = Gate::open;
  std::size_t changes_ = 0;  // under way
  std::size_t reads_ = 0;
  std::deque<std::function<void()>> held_;
  std::function<void()> when_quiet_;
  client::Cluster::Holder_answer answer_;  // of the operation under way
  Time_point take_back_at_{};
  client::Done closing_;
  bool is_closing_ = false;
  std::shared_ptr<Merge_run> merge_;
  std::string migration_;  // the last one that this side took part in
  bool is_away_ = false;   // another client has it; held requests ask for it
  bool is_fetching_ = false;
  bool is_origin_ = false;   // it was here when migration_ began
  bool is_changed_ = false;  // since it came
  Time_point fetch_at_{};
  Rate_limiter limiter_;
  struct Throttled {
    std::uint64_t bytes;
    std::function<void()> request;
  };
  std::deque<Throttled> throttled_;
  bool is_releasing_ = false;
  std::error_code gone_;  // the disk could not be taken back
};

}  // namespace pstorage::volume
