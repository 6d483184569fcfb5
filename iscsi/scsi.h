// Numbers of SCSI that the target needs. Source: SAM-5, SPC-4, SBC-3.
#pragma once

#include <cstdint>

namespace pstorage::iscsi {

enum class Status : std::uint8_t {
  good = 0x00,
  check_condition = 0x02,
  busy = 0x08,
  reservation_conflict = 0x18,
};

/// Sense key, additional sense code and qualifier (code << 8 | qualifier).
struct Sense {
  std::uint8_t key = 0;
  std::uint16_t code = 0;
  bool operator==(Sense const&) const = default;
};

namespace sense {
inline constexpr Sense becoming_ready{0x02, 0x0401};
inline constexpr Sense standby{0x02, 0x040b};      // TARGET PORT IN STANDBY STATE
inline constexpr Sense unavailable{0x02, 0x040c};  // TARGET PORT IN UNAVAILABLE STATE
inline constexpr Sense unrecovered_read{0x03, 0x1100};
inline constexpr Sense hardware_error{0x04, 0x4400};
inline constexpr Sense parameter_length{0x05, 0x1a00};
inline constexpr Sense lba_out_of_range{0x05, 0x2100};
inline constexpr Sense invalid_field_in_cdb{0x05, 0x2400};
inline constexpr Sense invalid_field_in_parameters{0x05, 0x2600};
inline constexpr Sense invalid_release{0x05, 0x2604};
inline constexpr Sense no_registration_room{0x05, 0x5504};
inline constexpr Sense write_protected{0x07, 0x2700};
inline constexpr Sense space_exhausted{0x07, 0x2707};
inline constexpr Sense miscompare{0x0e, 0x1d00};
}  // namespace sense

/// Codes of unit attentions that the module raises.
namespace attention {
inline constexpr std::uint16_t capacity_changed = 0x2a09;
inline constexpr std::uint16_t reservations_preempted = 0x2a03;
inline constexpr std::uint16_t reservations_released = 0x2a04;
inline constexpr std::uint16_t registrations_preempted = 0x2a05;
inline constexpr std::uint16_t access_state_changed = 0x2a06;
}  // namespace attention

namespace opcode {
inline constexpr std::uint8_t test_unit_ready = 0x00;
inline constexpr std::uint8_t request_sense = 0x03;
inline constexpr std::uint8_t read_6 = 0x08;
inline constexpr std::uint8_t write_6 = 0x0a;
inline constexpr std::uint8_t inquiry = 0x12;
inline constexpr std::uint8_t reserve_6 = 0x16;
inline constexpr std::uint8_t release_6 = 0x17;
inline constexpr std::uint8_t mode_sense_6 = 0x1a;
inline constexpr std::uint8_t start_stop_unit = 0x1b;
inline constexpr std::uint8_t prevent_allow = 0x1e;
inline constexpr std::uint8_t read_capacity_10 = 0x25;
inline constexpr std::uint8_t read_10 = 0x28;
inline constexpr std::uint8_t write_10 = 0x2a;
inline constexpr std::uint8_t write_and_verify_10 = 0x2e;
inline constexpr std::uint8_t verify_10 = 0x2f;
inline constexpr std::uint8_t prefetch_10 = 0x34;
inline constexpr std::uint8_t synchronize_cache_10 = 0x35;
inline constexpr std::uint8_t write_same_10 = 0x41;
inline constexpr std::uint8_t unmap = 0x42;
inline constexpr std::uint8_t mode_sense_10 = 0x5a;
inline constexpr std::uint8_t persistent_reserve_in = 0x5e;
inline constexpr std::uint8_t persistent_reserve_out = 0x5f;
inline constexpr std::uint8_t read_16 = 0x88;
inline constexpr std::uint8_t compare_and_write = 0x89;
inline constexpr std::uint8_t write_16 = 0x8a;
inline constexpr std::uint8_t or_write_16 = 0x8b;
inline constexpr std::uint8_t write_and_verify_16 = 0x8e;
inline constexpr std::uint8_t verify_16 = 0x8f;
inline constexpr std::uint8_t prefetch_16 = 0x90;
inline constexpr std::uint8_t synchronize_cache_16 = 0x91;
inline constexpr std::uint8_t write_same_16 = 0x93;
inline constexpr std::uint8_t service_action_in = 0x9e;
inline constexpr std::uint8_t report_luns = 0xa0;
inline constexpr std::uint8_t maintenance_in = 0xa3;
inline constexpr std::uint8_t read_12 = 0xa8;
inline constexpr std::uint8_t write_12 = 0xaa;
inline constexpr std::uint8_t write_and_verify_12 = 0xae;
inline constexpr std::uint8_t verify_12 = 0xaf;
}  // namespace opcode

/// Service actions of 0x9e; the module answers the second one itself.
inline constexpr std::uint8_t read_capacity_16_action = 0x10;
inline constexpr std::uint8_t get_lba_status_action = 0x12;
/// Of 0xa3.
inline constexpr std::uint8_t report_port_groups_action = 0x0a;

}  // namespace pstorage::iscsi
