// Where the blocks of a disk are: what the SCSI side asks of an NBD server.
#pragma once

#include <cstdint>
#include <vector>

namespace pstorage::iscsi {

enum class Store_operation : std::uint8_t { read, write, zero, flush, status };

/// A run of the volume as block status reports it.
struct Extent {
  std::uint64_t length = 0;  // bytes
  bool is_hole = false;
};

/// One request to a store. Lives in the command that asks; not touched by it until the answer.
class Store_request {
 public:
  Store_operation operation = Store_operation::read;
  bool fua = false;
  std::uint64_t offset = 0;      // bytes
  std::uint64_t length = 0;      // bytes; at most store_bytes_max, for zero and status 1 GiB
  std::uint8_t* data = nullptr;  // read: filled; write: sent
  std::vector<Extent> extents;   // status: the answer, in order from `offset`

  /// `error`: 0, or an errno. EAGAIN: the store could not be reached for too long, and nothing of
  /// this request is under way. Never called inside Store::submit().
  virtual void store_done(int error) = 0;

  std::uint32_t age_ticks = 0;  // the store's: how long it has been waiting

 protected:
  ~Store_request() = default;
};

inline constexpr std::uint64_t store_bytes_max = 32u << 20;
inline constexpr std::uint64_t store_range_max = 1u << 30;

/// Thread: tgtd's loop. Every request is idempotent under the range lock, so a store may carry it
/// out twice when a connection breaks.
class Store {
 public:
  virtual ~Store() = default;
  virtual void submit(Store_request& request) = 0;
};

}  // namespace pstorage::iscsi
