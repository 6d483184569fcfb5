// What a CDB that addresses blocks asks for, and whether this disk may do it. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "iscsi/scsi.h"

namespace pstorage::iscsi {

enum class Operation : std::uint8_t {
  read,
  write,
  verify,
  write_and_verify,
  or_write,
  compare_and_write,
  write_same,
  unmap,
  prefetch,
  synchronize_cache,
  get_lba_status,
};

/// Does it change what is on the disk?
bool is_write(Operation operation);

/// A CDB, taken apart. Units: logical blocks, unless a name says bytes.
struct Block_command {
  Operation operation = Operation::read;
  std::uint64_t lba = 0;
  std::uint64_t blocks = 0;  // of the disk; WRITE SAME: 0 = up to the end
  bool fua = false;
  bool compares = false;              // VERIFY, WRITE AND VERIFY: BYTCHK = 1
  bool unmaps = false;                // WRITE SAME with UNMAP
  bool has_no_data = false;           // WRITE SAME(16) with NDOB: zeros
  std::uint32_t parameter_bytes = 0;  // UNMAP: list length; GET LBA STATUS: allocation length
};

/// What bounds a command. Sizes in bytes.
struct Geometry {
  std::uint64_t size = 0;
  std::uint32_t block = 512;
  bool is_read_only = false;

  std::uint64_t blocks() const { return size / block; }
};

inline constexpr std::uint32_t transfer_bytes_max = 32u << 20;
inline constexpr std::uint32_t compare_blocks_max = 128;
inline constexpr std::uint32_t unmap_blocks_max = 1u << 20;
inline constexpr std::uint32_t unmap_ranges_max = 256;
inline constexpr std::uint64_t write_same_blocks_max = 1u << 22;

/// Nothing when `cdb` is not one of the commands above. A command with a field that is not
/// supported (protection information, ANCHOR, BYTCHK 2 and 3) gets `refused` set.
std::optional<Block_command> parse(std::span<std::uint8_t const> cdb,
                                   std::optional<Sense>& refused);

/// Why the command cannot be done on this disk: bounds, limits, write protection. `out_bytes`: what
/// the initiator sends. Ends of ranges are checked by subtraction; nothing overflows.
std::optional<Sense> check(Block_command const& command, Geometry const& disk,
                           std::uint64_t out_bytes);

/// Bytes that the command moves between initiator and target, as the CDB says.
std::uint64_t transfer_bytes(Block_command const& command, Geometry const& disk);

}  // namespace pstorage::iscsi
