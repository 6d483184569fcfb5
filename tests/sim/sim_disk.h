// A disk that forgets, tears, rots, fills up, stalls and fails: the simulated twin of posix_disk.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/env/disk.h"
#include "core/env/random.h"
#include "tests/sim/sim_scheduler.h"

namespace pstorage::sim {

enum class Disk_call {
  open,
  read,
  write,
  sync,
  punch,
  truncate,
  remove,
  rename,
  make_directory,
  sync_directory
};

/// No bookkeeping of used space a write.
inline constexpr std::uint64_t unlimited_bytes = std::uint64_t{1} << 40;

struct Sim_disk_options {
  std::uint64_t capacity_bytes = unlimited_bytes;
  Duration sync_time = std::chrono::microseconds(200);
  Duration read_time = std::chrono::microseconds(100);
  unsigned would_block_percent = 0;  // how often read_cached claims a miss
};

/// Durable contents plus everything that was not yet synced, in order. The owner of the simulation
/// calls kill() or crash() after it has destroyed the process that used the disk; Files that are
/// still open then fail. One thread.
class Sim_disk final : public Disk {
 public:
  Sim_disk(Sim_scheduler& scheduler, Random& random, Sim_disk_options options = {});
  ~Sim_disk() override;

  Result<std::unique_ptr<File>> open(std::string const& name, Open_mode mode) override;
  bool exists(std::string const& name) override;
  Result<std::vector<std::string>> list(std::string const& name) override;
  Result<void> make_directory(std::string const& name) override;
  Result<void> remove(std::string const& name) override;
  Result<void> rename(std::string const& from, std::string const& to) override;
  Result<void> sync_directory(std::string const& name) override;
  void sync_directory_async(std::string const& name, Disk_completion done) override;
  Result<Disk_space> space() override;

  /// The process died, the machine lives: nothing is lost.
  void kill();
  /// The power failed: each unsynced write, punch and truncation is kept, dropped or (writes) torn
  /// at 512 bytes, each unsynced change of a directory is kept or dropped, in any combination.
  void crash();

  /// Inverts bits of one byte, in the page cache and on the platter.
  void flip(std::string const& name, std::uint64_t offset, unsigned char mask);
  void set_capacity(std::uint64_t bytes) { options_.capacity_bytes = bytes; }
  std::uint64_t used_bytes() const;
  /// Asked before every call; an answer makes the call fail with it. Null: no faults.
  using Fault = std::function<std::optional<std::error_code>(Disk_call, std::string const& name)>;
  void set_fault(Fault fault) { fault_ = std::move(fault); }
  /// From now on syncs and reads take so much longer.
  void set_slowness(Duration more) { slowness_ = more; }
  /// Completions wait until that moment.
  void stall_until(Time_point moment) { stalled_until_ = moment; }
  /// Calls made so far, for "fail the Nth" loops.
  std::uint64_t calls() const { return calls_; }

  struct Inode;

 private:
  friend class Sim_file;
  using Page = std::array<std::byte, 4096>;
  struct Node {  // what a name stands for
    bool is_directory = false;
    std::shared_ptr<Inode> file;
  };
  using Names = std::map<std::string, Node>;
  struct Change {  // of names, atomic
    std::vector<std::pair<std::string, std::optional<Node>>> sets;
  };

  std::optional<std::error_code> fault(Disk_call call, std::string const& name);
  void later(Duration delay, std::function<void()> work);
  void change(Change change);
  bool is_directory(std::string const& name) const;
  void make_durable(std::string const& directory, std::size_t changes);
  void settle_names();

  Sim_scheduler& scheduler_;
  Random& random_;
  Sim_disk_options options_;
  Fault fault_;
  Time_point stalled_until_{};
  Duration slowness_{0};
  std::uint64_t calls_ = 0;
  std::uint64_t life_ =
      1;           // of the process that uses it; Files and completions of earlier ones fail
  Names names_;    // as seen now
  Names durable_;  // as after a power loss that drops everything unsynced
  std::vector<Change> changes_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pstorage::sim
