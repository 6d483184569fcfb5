// Several gateways serve one LUN, one of them at a time: asymmetric logical unit access, implicit.
// A gateway is a target port group with one port of the same number. Pure. Source:
// SPC-4 5.15, 6.37.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pstorage::iscsi {

enum class Access_state : std::uint8_t { active = 0, standby = 2, unavailable = 3 };

struct Port_groups {
  std::vector<std::uint16_t> all;  // empty: one path, and nothing is said of any of this
  std::uint16_t own = 1;
  std::uint16_t active = 1;  // 0: none

  bool is_any() const { return !all.empty(); }
  bool is_standby() const { return is_any() && own != active; }
  bool operator==(Port_groups const&) const = default;
};

inline constexpr std::size_t port_groups_max = 16;

/// The answer to REPORT TARGET PORT GROUPS before truncation. `own`: of this gateway; the others
/// are standby, but for the active one. `is_extended`: with the longer header, as the CDB asks.
std::vector<std::uint8_t> report(Port_groups const& groups, Access_state own, bool is_extended);

/// Is this command served by a gateway that is not the active one? Like Linux's own target also
/// READ CAPACITY: initiators want to know the size of a path that is not in use yet.
bool works_in_standby(std::span<std::uint8_t const> cdb);

/// Is it REPORT TARGET PORT GROUPS?
bool asks_for_port_groups(std::span<std::uint8_t const> cdb);

}  // namespace pstorage::iscsi
