// What handlers do with tgtd's commands.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "iscsi/module/tgt_abi.h"
#include "iscsi/scsi.h"

namespace pstorage::iscsi {

std::span<std::uint8_t> bytes_of(tgt_data const& data);
std::span<std::uint8_t const> cdb_of(scsi_cmd const& command);
/// What the initiator learns: `actual` bytes were to be moved.
void set_residual(tgt_data& data, std::uint64_t actual);

inline int status_of(Status status) { return static_cast<int>(status); }
// What a handler returns.
int refuse(scsi_cmd& command, Sense sense);
/// `room`: allocation length of the CDB.
int send_page(scsi_cmd& command, std::vector<std::uint8_t> const& page, std::uint64_t room);

}  // namespace pstorage::iscsi
