// Persistent reservations: who may do what, and how PERSISTENT RESERVE OUT changes it. Pure.
// Source: SPC-4 5.12 and 6.15, 6.16.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "iscsi/scsi.h"

namespace pstorage::iscsi {

/// Name of an initiator port: "iqn...,i,0x" and 12 hex digits. It stays the same over re-login,
/// restarts of the target and a change of gateway.
using Port_name = std::string;

enum class Reservation_type : std::uint8_t {
  write_exclusive = 1,
  exclusive_access = 3,
  write_exclusive_registrants = 5,
  exclusive_access_registrants = 6,
  write_exclusive_all = 7,
  exclusive_access_all = 8,
};

struct Registration {
  Port_name port;
  std::uint64_t key = 0;
  bool operator==(Registration const&) const = default;
};

struct Holder {
  Port_name port;  // of the *_all types: who reserved; every registrant holds it
  Reservation_type type = Reservation_type::write_exclusive;
  bool operator==(Holder const&) const = default;
};

/// Everything that has to be durable.
struct Reservation_state {
  std::uint32_t generation = 0;
  bool persists = false;  // APTPL as last asked for
  std::vector<Registration> registrations;
  std::optional<Holder> holder;
  bool operator==(Reservation_state const&) const = default;
};

inline constexpr std::size_t registrations_max = 1024;

/// A unit attention for the sessions of one initiator port.
struct Attention {
  Port_name port;
  std::uint16_t code = 0;
  bool operator==(Attention const&) const = default;
};

/// What PERSISTENT RESERVE OUT leads to. With `next` the state is to be made durable first; then
/// the attentions are raised and the status is sent.
struct Reserve_decision {
  Status status = Status::good;
  Sense sense;
  std::optional<Reservation_state> next;
  std::vector<Attention> attentions;
  bool fences = false;  // PREEMPT, CLEAR: answered only once commands let in before have ended
};

/// Decides about a PERSISTENT RESERVE OUT of `port`. `cdb`: 10 bytes; `parameters`: its list.
Reserve_decision decide(Reservation_state const& state, Port_name const& port,
                        std::span<std::uint8_t const> cdb,
                        std::span<std::uint8_t const> parameters);

/// The answer to a PERSISTENT RESERVE IN before truncation; nothing for an unknown service action.
std::optional<std::vector<std::uint8_t>> report(Reservation_state const& state,
                                                std::uint8_t service_action);

/// Must this command of `port` be refused with RESERVATION CONFLICT?
bool conflicts(Reservation_state const& state, Port_name const& port,
               std::span<std::uint8_t const> cdb);

/// Must RESERVE(6), RELEASE(6) be refused, because registrations exist?
bool conflicts_with_reserve_6(Reservation_state const& state);

}  // namespace pstorage::iscsi
