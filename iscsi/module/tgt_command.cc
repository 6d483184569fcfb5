#include "iscsi/module/tgt_command.h"

#include <algorithm>

namespace pstorage::iscsi {
namespace {

constexpr std::uint32_t cdb_bytes_max = 16;

}  // namespace

std::span<std::uint8_t> bytes_of(tgt_data const& data) {
  // tgtd keeps pointers as numbers here.
  auto* const start = reinterpret_cast<std::uint8_t*>(data.buffer);  // NOLINT
  return {start, start == nullptr ? 0 : data.length};
}

void set_residual(tgt_data& data, std::uint64_t actual) {
  auto const expected = data.length;
  auto const moved = static_cast<std::uint32_t>(std::min<std::uint64_t>(actual, expected));
  data.transferred = moved;
  data.residual = static_cast<std::int32_t>(static_cast<std::int64_t>(expected) -
                                            static_cast<std::int64_t>(actual));
}

std::span<std::uint8_t const> cdb_of(scsi_cmd const& command) {
  return {command.cdb, std::min(static_cast<std::uint32_t>(command.cdb_bytes), cdb_bytes_max)};
}

int refuse(scsi_cmd& command, Sense sense) {
  set_residual(command.in, 0);
  set_residual(command.out, 0);
  sense_data_build(&command, sense.key, sense.code);
  return status_of(Status::check_condition);
}

int send_page(scsi_cmd& command, std::vector<std::uint8_t> const& page, std::uint64_t room) {
  auto const to = bytes_of(command.in);
  auto const wanted = std::min<std::size_t>(page.size(), room);
  std::copy_n(page.begin(), std::min(wanted, to.size()), to.begin());
  set_residual(command.in, wanted);
  return status_of(Status::good);
}

}  // namespace pstorage::iscsi
