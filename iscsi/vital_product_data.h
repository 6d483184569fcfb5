// VPD pages of a LUN, without their 4-byte headers (tgt writes those). Pure.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "iscsi/port_groups.h"

namespace pstorage::iscsi {

/// Identity of a volume: the same through every gateway, different for every volume.
using Volume_uuid = std::array<std::uint8_t, 16>;

/// "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", either case. Errors: bad_request.
Outcome<Volume_uuid> parse_uuid(std::string const& text);
std::string uuid_text(Volume_uuid const& uuid);

/// 80: unit serial number, the UUID as text.
std::vector<std::uint8_t> serial_number_page(Volume_uuid const& uuid);
/// 83: NAA (locally assigned, 60 bits of the UUID), T10 vendor, the UUID itself, the port, and its
/// group when there are several.
std::vector<std::uint8_t> identification_page(Volume_uuid const& uuid, Port_groups const& groups);
/// B0: block limits. `block_bytes`: 512 or 4096.
std::vector<std::uint8_t> block_limits_page(std::uint32_t block_bytes);
/// B1: block device characteristics: no rotating medium.
std::vector<std::uint8_t> characteristics_page();
/// B2: thin, unmapped blocks read as zeros, UNMAP and WRITE SAME unmap.
std::vector<std::uint8_t> provisioning_page();

}  // namespace pstorage::iscsi
