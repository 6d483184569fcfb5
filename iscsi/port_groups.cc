#include "iscsi/port_groups.h"

#include "iscsi/big_endian.h"
#include "iscsi/scsi.h"

namespace pstorage::iscsi {
namespace {

constexpr std::uint8_t action_bits = 0x1f;
constexpr std::uint8_t supported_states = 0x0d;  // unavailable, standby, active/optimized
constexpr std::uint8_t changed_by_target = 0x02;
constexpr std::size_t group_bytes = 12;  // with its one port
constexpr std::uint8_t extended_format = 0x10;

}  // namespace

std::vector<std::uint8_t> report(Port_groups const& groups, Access_state own, bool is_extended) {
  std::vector<std::uint8_t> page(is_extended ? 8 : 4);
  if (is_extended) page[4] = extended_format;  // the time of a transition: nothing to say
  for (auto const group : groups.all) {
    auto const at = page.size();
    page.resize(at + group_bytes);
    auto const state = group == groups.own      ? own
                       : group == groups.active ? Access_state::active
                                                : Access_state::standby;
    page[at] = static_cast<std::uint8_t>(state);
    page[at + 1] = supported_states;
    put_be<2>(page, at + 2, group);
    page[at + 5] = changed_by_target;
    page[at + 7] = 1;  // ports
    put_be<2>(page, at + 10, group);
  }
  put_be<4>(page, 0, page.size() - 4);
  return page;
}

bool works_in_standby(std::span<std::uint8_t const> cdb) {
  switch (cdb[0]) {
    case opcode::inquiry:
    case opcode::request_sense:
    case opcode::report_luns:
    case opcode::mode_sense_6:
    case opcode::mode_sense_10:
    case opcode::maintenance_in:
    case opcode::read_capacity_10:
      return true;
    case opcode::service_action_in:
      return (cdb[1] & action_bits) == read_capacity_16_action;
    default:
      return false;
  }
}

bool asks_for_port_groups(std::span<std::uint8_t const> cdb) {
  return cdb[0] == opcode::maintenance_in && (cdb[1] & action_bits) == report_port_groups_action;
}

}  // namespace pstorage::iscsi
