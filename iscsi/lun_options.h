// What a LUN is made with: tgtadm's --bsopts, "size=N;uuid=U;...". Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "iscsi/vital_product_data.h"

namespace pstorage::iscsi {

struct Lun_options {
  std::uint64_t size_bytes = 0;   // size=: of the volume; asking the server would block the loop
  Volume_uuid uuid{};             // uuid=
  std::string reservations_path;  // reservations=: file of the persistent reservations; empty:
                                  // they end with the process
  std::string reservations_uri;   // reservations-uri=: NBD URI of a volume for them, instead
  std::uint32_t patience_seconds = 20;  // patience=: until NOT READY while the server is away
  bool is_read_only = false;            // readonly=1
  Port_groups groups;  // groups=1/2;group=2;active=1: gateways, this one, who serves
};

/// Options are separated by ';' (',' is tgt's own). Errors: bad_request, naming the option.
Outcome<Lun_options> parse_lun_options(std::string_view text);

/// "pst_size=N" (bytes) as `tgtadm --op update --params` hands it over; nothing is taken from any
/// other parameter. Errors: bad_request.
Outcome<std::uint64_t> parse_size_parameter(std::string_view text);
inline constexpr std::string_view size_parameter = "pst_size=";
/// Makes a LUN in standby the active one.
inline constexpr std::string_view activate_parameter = "pst_state=active";

}  // namespace pstorage::iscsi
