#include "iscsi/reservations.h"

#include <algorithm>

#include "iscsi/big_endian.h"
#include "iscsi/block_command.h"

namespace pstorage::iscsi {
namespace {

enum Action : std::uint8_t {
  action_register = 0,
  action_reserve = 1,
  action_release = 2,
  action_clear = 3,
  action_preempt = 4,
  action_preempt_and_abort = 5,
  action_register_and_ignore = 6,
};

constexpr std::size_t parameter_bytes = 24;
constexpr std::uint8_t specify_ports_bit = 0x08;
constexpr std::uint8_t all_target_ports_bit = 0x04;
constexpr std::uint8_t persist_bit = 0x01;

bool is_for_registrants(Reservation_type type) {
  return type >= Reservation_type::write_exclusive_registrants;
}
bool is_for_all(Reservation_type type) { return type >= Reservation_type::write_exclusive_all; }
bool is_exclusive_access(Reservation_type type) {
  return type == Reservation_type::exclusive_access ||
         type == Reservation_type::exclusive_access_registrants ||
         type == Reservation_type::exclusive_access_all;
}

Registration const* find(Reservation_state const& state, Port_name const& port) {
  auto const found = std::find_if(state.registrations.begin(), state.registrations.end(),
                                  [&](Registration const& one) { return one.port == port; });
  return found == state.registrations.end() ? nullptr : &*found;
}

bool holds(Reservation_state const& state, Port_name const& port) {
  return state.holder && (is_for_all(state.holder->type) ? find(state, port) != nullptr
                                                         : state.holder->port == port);
}

Reserve_decision refuse(Status status) {
  return {.status = status, .sense = {}, .next = {}, .attentions = {}};
}
Reserve_decision refuse(Sense sense) {
  return {.status = Status::check_condition, .sense = sense, .next = {}, .attentions = {}};
}

struct Request {
  Port_name const& port;
  std::uint8_t action;
  std::uint8_t scope;
  std::uint8_t type;
  std::uint64_t key;
  std::uint64_t action_key;
  bool persists;
};

/// Tells every registrant except `port` and those in `except`.
void tell_others(Reserve_decision& decision, Port_name const& port, std::uint16_t code,
                 std::vector<Port_name> const& except = {}) {
  for (auto const& one : decision.next->registrations) {
    if (one.port == port || std::find(except.begin(), except.end(), one.port) != except.end()) {
      continue;
    }
    decision.attentions.push_back({one.port, code});
  }
}

void drop_reservation(Reserve_decision& decision, Port_name const& port,
                      std::vector<Port_name> const& except = {}) {
  auto const type = decision.next->holder->type;
  decision.next->holder.reset();
  if (is_for_registrants(type)) {
    tell_others(decision, port, attention::reservations_released, except);
  }
}

Reserve_decision unregister(Reserve_decision decision, Port_name const& port) {
  auto& next = *decision.next;
  std::erase_if(next.registrations, [&](Registration const& one) { return one.port == port; });
  ++next.generation;
  if (!next.holder) return decision;
  bool const ends =
      is_for_all(next.holder->type) ? next.registrations.empty() : next.holder->port == port;
  if (ends) drop_reservation(decision, port);
  return decision;
}

Reserve_decision do_register(Reservation_state const& state, Request const& request) {
  bool const ignores = request.action == action_register_and_ignore;
  auto const* const mine = find(state, request.port);
  if (!ignores && request.key != (mine == nullptr ? 0 : mine->key)) {
    return refuse(Status::reservation_conflict);
  }
  Reserve_decision decision{.sense = {}, .next = state, .attentions = {}};
  decision.next->persists = request.persists;
  if (request.action_key == 0) {
    if (mine == nullptr) return {};
    return unregister(std::move(decision), request.port);
  }
  if (mine == nullptr) {
    if (state.registrations.size() >= registrations_max) return refuse(sense::no_registration_room);
    decision.next->registrations.push_back({request.port, request.action_key});
  } else {
    decision.next->registrations[static_cast<std::size_t>(mine - state.registrations.data())].key =
        request.action_key;
  }
  ++decision.next->generation;
  return decision;
}

Reserve_decision do_reserve(Reservation_state const& state, Request const& request) {
  auto const type = static_cast<Reservation_type>(request.type);
  if (state.holder) {
    if (holds(state, request.port) && state.holder->type == type) return {};
    return refuse(Status::reservation_conflict);
  }
  Reserve_decision decision{.sense = {}, .next = state, .attentions = {}};
  decision.next->holder = Holder{request.port, type};
  return decision;
}

Reserve_decision do_release(Reservation_state const& state, Request const& request) {
  if (!holds(state, request.port)) return {};
  if (request.type != static_cast<std::uint8_t>(state.holder->type) || request.scope != 0) {
    return refuse(sense::invalid_release);
  }
  Reserve_decision decision{.sense = {}, .next = state, .attentions = {}};
  drop_reservation(decision, request.port);
  return decision;
}

Reserve_decision do_clear(Reservation_state const& state, Request const& request) {
  Reserve_decision decision{.sense = {}, .next = state, .attentions = {}, .fences = true};
  tell_others(decision, request.port, attention::reservations_preempted);
  decision.next->registrations.clear();
  decision.next->holder.reset();
  ++decision.next->generation;
  return decision;
}

/// Takes out every registration but the preemptor's that `is_victim`; returns their ports.
template <typename Is_victim>
std::vector<Port_name> remove_victims(Reserve_decision& decision, Port_name const& preemptor,
                                      Is_victim const& is_victim) {
  std::vector<Port_name> victims;
  for (auto const& one : decision.next->registrations) {
    if (one.port == preemptor || !is_victim(one)) continue;
    victims.push_back(one.port);
    decision.attentions.push_back({one.port, attention::registrations_preempted});
  }
  std::erase_if(decision.next->registrations,
                [&](Registration const& one) { return one.port != preemptor && is_victim(one); });
  return victims;
}

Reserve_decision do_preempt(Reservation_state const& state, Request const& request) {
  auto const key = request.action_key;
  bool const all = state.holder && is_for_all(state.holder->type);
  if (key == 0 && !all) return refuse(sense::invalid_field_in_parameters);
  auto const* const holder = state.holder ? find(state, state.holder->port) : nullptr;
  bool const takes_over =
      state.holder && (all ? key == 0 : holder != nullptr && holder->key == key);
  bool const is_known = std::any_of(state.registrations.begin(), state.registrations.end(),
                                    [key](Registration const& one) { return one.key == key; });
  if (!takes_over && !is_known) return refuse(Status::reservation_conflict);

  Reserve_decision decision{.sense = {}, .next = state, .attentions = {}, .fences = true};
  auto const victims = remove_victims(decision, request.port, [&](Registration const& one) {
    return (all && key == 0) || one.key == key;
  });
  ++decision.next->generation;
  if (takes_over) {
    auto const type = static_cast<Reservation_type>(request.type);
    auto const before = state.holder->type;
    decision.next->holder = Holder{request.port, type};
    if (before != type && is_for_registrants(before)) {
      tell_others(decision, request.port, attention::reservations_released, victims);
    }
  }
  return decision;
}

bool is_known_type(std::uint8_t type) { return type == 1 || type == 3 || (type >= 5 && type <= 8); }

std::vector<std::uint8_t> transport_id(Port_name const& port) {
  auto const bytes = std::max<std::size_t>(20, (port.size() + 1 + 3) / 4 * 4);
  std::vector<std::uint8_t> id(4 + bytes);
  id[0] = 0x45;  // iSCSI, with the port's part of the name
  put_be<2>(id, 2, bytes);
  std::copy(port.begin(), port.end(), id.begin() + 4);
  return id;
}

std::vector<std::uint8_t> header(Reservation_state const& state) {
  std::vector<std::uint8_t> page(8);
  put_be<4>(page, 0, state.generation);
  return page;
}

std::vector<std::uint8_t> report_keys(Reservation_state const& state) {
  auto page = header(state);
  for (auto const& one : state.registrations) {
    page.resize(page.size() + 8);
    put_be<8>(page, page.size() - 8, one.key);
  }
  put_be<4>(page, 4, page.size() - 8);
  return page;
}

std::vector<std::uint8_t> report_reservation(Reservation_state const& state) {
  auto page = header(state);
  if (!state.holder) return page;
  page.resize(24);
  put_be<4>(page, 4, 16);
  auto const* const holder = find(state, state.holder->port);
  bool const has_key = holder != nullptr && !is_for_all(state.holder->type);
  put_be<8>(page, 8, has_key ? holder->key : 0);
  page[21] = static_cast<std::uint8_t>(state.holder->type);
  return page;
}

std::vector<std::uint8_t> report_capabilities(Reservation_state const& state) {
  std::vector<std::uint8_t> page(8);
  put_be<2>(page, 0, page.size());
  page[2] = 0x01;                                                        // PTPL_C
  page[3] = static_cast<std::uint8_t>(0x80 | (state.persists ? 1 : 0));  // TMV, PTPL_A
  page[4] = 0xea;                                                        // types 7, 6, 5, 3, 1
  page[5] = 0x01;                                                        // type 8
  return page;
}

std::vector<std::uint8_t> report_full_status(Reservation_state const& state) {
  auto page = header(state);
  for (auto const& one : state.registrations) {
    auto const id = transport_id(one.port);
    auto const at = page.size();
    page.resize(at + 24);
    put_be<8>(page, at, one.key);
    if (holds(state, one.port)) {
      page[at + 12] = 0x01;  // R_HOLDER
      page[at + 13] = static_cast<std::uint8_t>(state.holder->type);
    }
    put_be<2>(page, at + 18, 1);  // relative target port
    put_be<4>(page, at + 20, id.size());
    page.insert(page.end(), id.begin(), id.end());
  }
  put_be<4>(page, 4, page.size() - 8);
  return page;
}

enum class Access : std::uint8_t { always, read, write };

/// What a command needs. Source: SPC-4 table 65, SBC-3 table 13; unknown commands count as writes.
Access access_of(std::span<std::uint8_t const> cdb) {
  switch (cdb[0]) {
    case opcode::test_unit_ready:
    case opcode::request_sense:
    case opcode::inquiry:
    case opcode::report_luns:
    case opcode::read_capacity_10:
    case opcode::maintenance_in:
    case opcode::persistent_reserve_in:
    case opcode::persistent_reserve_out:
    case opcode::reserve_6:
    case opcode::release_6:
      return Access::always;
    case opcode::start_stop_unit:  // starting is harmless
      return (cdb[4] & 0xf0) == 0 && (cdb[4] & 0x01) != 0 ? Access::always : Access::write;
    case opcode::prevent_allow:
      return (cdb[4] & 0x03) == 0 ? Access::always : Access::write;
    case opcode::service_action_in:
      return (cdb[1] & 0x1f) == get_lba_status_action ? Access::read : Access::always;
    default:
      break;
  }
  std::optional<Sense> refused;
  auto const command = parse(cdb, refused);
  if (!command) return Access::write;
  switch (command->operation) {
    case Operation::read:
    case Operation::verify:
    case Operation::prefetch:
      return Access::read;
    default:
      return Access::write;
  }
}

}  // namespace

Reserve_decision decide(Reservation_state const& state, Port_name const& port,
                        std::span<std::uint8_t const> cdb,
                        std::span<std::uint8_t const> parameters) {
  auto const action = static_cast<std::uint8_t>(cdb[1] & 0x1f);
  if (action > action_register_and_ignore) return refuse(sense::invalid_field_in_cdb);
  if (get_be<4>(cdb, 5) != parameter_bytes || parameters.size() < parameter_bytes) {
    return refuse(sense::parameter_length);
  }
  Request const request{.port = port,
                        .action = action,
                        .scope = static_cast<std::uint8_t>(cdb[2] >> 4),
                        .type = static_cast<std::uint8_t>(cdb[2] & 0x0f),
                        .key = get_be<8>(parameters, 0),
                        .action_key = get_be<8>(parameters, 8),
                        .persists = (parameters[20] & persist_bit) != 0};
  bool const registers = action == action_register || action == action_register_and_ignore;
  if (registers) {
    if ((parameters[20] & (specify_ports_bit | all_target_ports_bit)) != 0) {
      return refuse(sense::invalid_field_in_parameters);
    }
    return do_register(state, request);
  }
  auto const* const mine = find(state, port);
  if (mine == nullptr || mine->key != request.key) return refuse(Status::reservation_conflict);
  bool const names_type =
      action == action_reserve || action == action_preempt || action == action_preempt_and_abort;
  if (names_type && (request.scope != 0 || !is_known_type(request.type))) {
    return refuse(sense::invalid_field_in_cdb);
  }
  switch (action) {
    case action_reserve:
      return do_reserve(state, request);
    case action_release:
      return do_release(state, request);
    case action_clear:
      return do_clear(state, request);
    default:
      return do_preempt(state, request);
  }
}

std::optional<std::vector<std::uint8_t>> report(Reservation_state const& state,
                                                std::uint8_t service_action) {
  switch (service_action) {
    case 0:
      return report_keys(state);
    case 1:
      return report_reservation(state);
    case 2:
      return report_capabilities(state);
    case 3:
      return report_full_status(state);
    default:
      return std::nullopt;
  }
}

bool conflicts(Reservation_state const& state, Port_name const& port,
               std::span<std::uint8_t const> cdb) {
  if (!state.holder || holds(state, port)) return false;
  if (is_for_registrants(state.holder->type) && find(state, port) != nullptr) return false;
  switch (access_of(cdb)) {
    case Access::always:
      return false;
    case Access::read:
      return is_exclusive_access(state.holder->type);
    case Access::write:
      return true;
  }
  return true;
}

bool conflicts_with_reserve_6(Reservation_state const& state) {
  return !state.registrations.empty();
}

}  // namespace pstorage::iscsi
