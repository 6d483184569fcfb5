// The block commands of one logical unit, carried out on a store. Knows nothing of tgt.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "iscsi/block_command.h"
#include "iscsi/range_lock.h"
#include "iscsi/store.h"

namespace pstorage::iscsi {

class Disk;

/// One command under way. Filled by the owner, given to Disk::start(), read when it is finished.
class Io final : private Store_request {
 public:
  Block_command command;
  std::span<std::uint8_t> out;  // from the initiator
  std::span<std::uint8_t> in;   // to the initiator
  void* owner = nullptr;        // the owner's

  Status status = Status::good;
  Sense sense;                               // with check_condition
  std::optional<std::uint64_t> information;  // offset of a miscompare
  std::uint64_t in_bytes = 0;                // what the target has to send, before truncation

 private:
  friend class Disk;
  enum class Phase : std::uint8_t { fetch, put, clear, flush, ask, end };
  struct Lock : Lock_range {
    Io* io = nullptr;
  };
  struct Range {
    std::uint64_t offset = 0;  // bytes
    std::uint64_t length = 0;
  };

  void store_done(int error) override;

  Disk* disk_ = nullptr;
  Lock lock_;
  std::array<Phase, 3> plan_{};
  std::size_t phase_ = 0;
  Range range_;                     // what the plan works on
  std::vector<Range> more_ranges_;  // UNMAP: still to come, the next one last
  std::uint64_t position_ = 0;      // bytes of range_ done in this phase
  std::uint8_t* fetch_to_ = nullptr;
  std::uint8_t* put_from_ = nullptr;
  std::uint64_t put_period_ = 0;  // WRITE SAME: bytes after which put_from_ repeats
  std::vector<std::uint8_t> scratch_;
  std::uint64_t serial_ = 0;
  std::size_t running_index_ = 0;
};

/// Who wants to know that a command is finished, when that was not within start().
class Io_listener {
 public:
  virtual ~Io_listener() = default;
  virtual void io_finished(Io& io) = 0;
};

class Disk {
 public:
  Disk(Store& store, Io_listener& listener, Geometry geometry);

  Geometry const& geometry() const { return geometry_; }
  void set_size(std::uint64_t bytes) { geometry_.size = bytes; }
  void set_read_only(bool is_read_only) { geometry_.is_read_only = is_read_only; }

  /// True: the command is finished. False: the listener hears of it later.
  bool start(Io& io);

  /// A mark between the commands started before and after this call.
  std::uint64_t mark() { return next_serial_++; }
  /// Has every command finished that was started before `mark`?
  bool is_drained(std::uint64_t mark) const;
  std::size_t running() const { return running_.size(); }

 private:
  friend class Io;
  bool plan(Io& io);
  bool plan_unmap(Io& io);
  void plan_write_same(Io& io);
  void submit_piece(Io& io);
  void advance(Io& io, int error);
  bool finish_phase(Io& io);
  void answer_status(Io& io);
  void finish(Io& io);

  Store& store_;
  Io_listener& listener_;
  Geometry geometry_;
  Range_lock lock_;
  std::vector<Io*> running_;
  std::vector<Lock_range*> granted_;
  std::uint64_t next_serial_ = 1;
};

}  // namespace pstorage::iscsi
