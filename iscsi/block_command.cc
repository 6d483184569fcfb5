#include "iscsi/block_command.h"

#include "iscsi/big_endian.h"

namespace pstorage::iscsi {
namespace {

constexpr std::uint8_t protection_bits = 0xe0;
constexpr std::uint8_t fua_bit = 0x08;
constexpr std::uint8_t byte_check_bits = 0x06;
constexpr std::uint8_t byte_check_compare = 0x02;
constexpr std::uint8_t logical_and_physical_data_bits = 0x06;  // WRITE SAME(10): PBDATA, LBDATA

/// Bytes of a CDB by its group. Source: SPC-4 4.2.5.1.
std::size_t cdb_bytes(std::uint8_t code) {
  switch (code >> 5) {
    case 0:
      return 6;
    case 1:
    case 2:
      return 10;
    case 4:
      return 16;
    case 5:
      return 12;
    default:
      return 0;
  }
}

std::optional<Operation> operation_of(std::span<std::uint8_t const> cdb) {
  switch (cdb[0]) {
    case opcode::read_6:
    case opcode::read_10:
    case opcode::read_12:
    case opcode::read_16:
      return Operation::read;
    case opcode::write_6:
    case opcode::write_10:
    case opcode::write_12:
    case opcode::write_16:
      return Operation::write;
    case opcode::verify_10:
    case opcode::verify_12:
    case opcode::verify_16:
      return Operation::verify;
    case opcode::write_and_verify_10:
    case opcode::write_and_verify_12:
    case opcode::write_and_verify_16:
      return Operation::write_and_verify;
    case opcode::or_write_16:
      return Operation::or_write;
    case opcode::compare_and_write:
      return Operation::compare_and_write;
    case opcode::write_same_10:
    case opcode::write_same_16:
      return Operation::write_same;
    case opcode::unmap:
      return Operation::unmap;
    case opcode::prefetch_10:
    case opcode::prefetch_16:
      return Operation::prefetch;
    case opcode::synchronize_cache_10:
    case opcode::synchronize_cache_16:
      return Operation::synchronize_cache;
    case opcode::service_action_in:
      if ((cdb[1] & 0x1f) == get_lba_status_action) return Operation::get_lba_status;
      return std::nullopt;
    default:
      return std::nullopt;
  }
}

void parse_range(std::span<std::uint8_t const> cdb, Block_command& command) {
  switch (cdb.size()) {
    case 6:
      command.lba = get_be<3>(cdb, 1) & 0x1fffff;
      command.blocks = cdb[4] == 0 ? 256 : cdb[4];
      break;
    case 10:
      command.lba = get_be<4>(cdb, 2);
      command.blocks = get_be<2>(cdb, 7);
      break;
    case 12:
      command.lba = get_be<4>(cdb, 2);
      command.blocks = get_be<4>(cdb, 6);
      break;
    default:
      command.lba = get_be<8>(cdb, 2);
      command.blocks =
          command.operation == Operation::compare_and_write ? cdb[13] : get_be<4>(cdb, 10);
      break;
  }
}

/// Sets what the flags in byte 1 ask for; false: one of them is not supported.
bool parse_flags(std::span<std::uint8_t const> cdb, Block_command& command) {
  std::uint8_t const flags = cdb[1];
  switch (command.operation) {
    case Operation::read:
    case Operation::write:
      if (cdb.size() == 6) return true;  // byte 1 is part of the address
      [[fallthrough]];
    case Operation::or_write:
    case Operation::compare_and_write:
      command.fua = (flags & fua_bit) != 0;
      return (flags & protection_bits) == 0;
    case Operation::verify:
    case Operation::write_and_verify:
      command.compares = (flags & byte_check_bits) == byte_check_compare;
      return (flags & protection_bits) == 0 && ((flags & byte_check_bits) == 0 || command.compares);
    case Operation::write_same:
      command.unmaps = (flags & 0x08) != 0;
      command.has_no_data = cdb.size() == 16 && (flags & 0x01) != 0;
      return (flags & protection_bits) == 0 && (flags & 0x10) == 0 &&
             (flags & logical_and_physical_data_bits) == 0;
    case Operation::unmap:
      return (flags & 0x01) == 0;  // ANCHOR
    case Operation::prefetch:
    case Operation::synchronize_cache:
    case Operation::get_lba_status:
      return true;
  }
  return false;
}

/// Most blocks that the limits page allows in one command; 0: no limit.
std::uint64_t blocks_max(Operation operation, Geometry const& disk) {
  switch (operation) {
    case Operation::read:
    case Operation::write:
    case Operation::verify:
    case Operation::write_and_verify:
    case Operation::or_write:
      return transfer_bytes_max / disk.block;
    case Operation::compare_and_write:
      return compare_blocks_max;
    case Operation::write_same:
      return write_same_blocks_max;
    default:
      return 0;
  }
}

}  // namespace

bool is_write(Operation operation) {
  switch (operation) {
    case Operation::write:
    case Operation::write_and_verify:
    case Operation::or_write:
    case Operation::compare_and_write:
    case Operation::write_same:
    case Operation::unmap:
      return true;
    default:
      return false;
  }
}

std::optional<Block_command> parse(std::span<std::uint8_t const> cdb,
                                   std::optional<Sense>& refused) {
  refused.reset();
  if (cdb.empty() || cdb_bytes(cdb[0]) == 0 || cdb.size() < cdb_bytes(cdb[0])) return std::nullopt;
  cdb = cdb.first(cdb_bytes(cdb[0]));
  auto const operation = operation_of(cdb);
  if (!operation) return std::nullopt;
  Block_command command{.operation = *operation};
  if (*operation == Operation::unmap) {
    command.parameter_bytes = static_cast<std::uint32_t>(get_be<2>(cdb, 7));
  } else if (*operation == Operation::get_lba_status) {
    command.lba = get_be<8>(cdb, 2);
    command.parameter_bytes = static_cast<std::uint32_t>(get_be<4>(cdb, 10));
  } else {
    parse_range(cdb, command);
  }
  if (!parse_flags(cdb, command)) refused = sense::invalid_field_in_cdb;
  return command;
}

std::optional<Sense> check(Block_command const& command, Geometry const& disk,
                           std::uint64_t out_bytes) {
  if (disk.is_read_only && is_write(command.operation)) return sense::write_protected;
  if (command.operation == Operation::unmap) return std::nullopt;  // its list is checked later
  std::uint64_t const end = disk.blocks();
  if (command.operation == Operation::get_lba_status) {
    if (command.lba >= end) return sense::lba_out_of_range;
    return std::nullopt;
  }
  bool const is_outside = command.blocks == 0
                              ? command.lba >= end
                              : command.blocks > end || command.lba > end - command.blocks;
  if (is_outside) return sense::lba_out_of_range;
  auto const most = blocks_max(command.operation, disk);
  auto const blocks = command.operation == Operation::write_same && command.blocks == 0
                          ? end - command.lba
                          : command.blocks;
  if (most != 0 && blocks > most) return sense::invalid_field_in_cdb;
  if (command.operation == Operation::write_same && !command.has_no_data &&
      out_bytes != disk.block) {
    return sense::parameter_length;
  }
  return std::nullopt;
}

std::uint64_t transfer_bytes(Block_command const& command, Geometry const& disk) {
  switch (command.operation) {
    case Operation::verify:
      return command.compares ? command.blocks * disk.block : 0;
    case Operation::compare_and_write:
      return 2 * command.blocks * disk.block;
    case Operation::write_same:
      return command.has_no_data ? 0 : disk.block;
    case Operation::unmap:
    case Operation::get_lba_status:
      return command.parameter_bytes;
    case Operation::prefetch:
    case Operation::synchronize_cache:
      return 0;
    default:
      return command.blocks * disk.block;
  }
}

}  // namespace pstorage::iscsi
