// Persistent reservations of a LUN.
#include <array>
#include <cstddef>
#include <cstdio>

#include "iscsi/big_endian.h"
#include "iscsi/module/logical_unit.h"
#include "iscsi/module/tgt_command.h"

namespace pstorage::iscsi {

Port_name Logical_unit::port_of(std::uint64_t session) const {
  // tgtd's buffer: 4 bytes of header, the initiator's name, NUL, ",i,0x", 6 bytes of ISID.
  constexpr std::size_t header_bytes = 4;
  constexpr std::size_t separator_bytes = 5;
  constexpr std::size_t isid_bytes = 6;
  std::array<char, 512> buffer{};
  auto const* const target = reinterpret_cast<tgt_target_head const*>(lun_.owner);
  int const used =
      iscsi_transportid(target->tid, session, buffer.data(), static_cast<int>(buffer.size()));
  if (used <= 0 || static_cast<std::size_t>(used) > buffer.size()) return {};
  Port_name name(buffer.data() + header_bytes);
  auto const* const isid = buffer.data() + header_bytes + name.size() + 1 + separator_bytes;
  name += ",i,0x";
  for (std::size_t i = 0; i < isid_bytes; ++i) {
    std::array<char, 3> hex{};
    std::snprintf(hex.data(), hex.size(), "%02x",
                  static_cast<unsigned>(static_cast<unsigned char>(isid[i])));
    name += hex.data();
  }
  return name;
}

void Logical_unit::load_reservations() {
  are_reservations_known_ = false;
  reservation_store_->load([this, alive = alive_](Outcome<Versioned_reservations> const& loaded) {
    if (!*alive) return;
    if (!loaded.has_value()) {
      if (!std::exchange(has_failed_to_load_, true)) {
        log_error("pstorage: %s: no command is served: %s\n", name_.c_str(),
                  loaded.error().text.c_str());
      }
      release_held();
      if (errc_of(loaded.error().code) == Errc::unavailable) load_reservations();
      return;
    }
    reservations_ = loaded.value();
    are_reservations_known_ = true;
    has_failed_to_load_ = false;
    release_held();
    tgt_add_sched_event(&deferred_);
  });
}

/// Answers, or lets go on, what came before it was known who may do what.
void Logical_unit::release_held() {
  for (auto const& [host, command] : std::exchange(held_, {})) {
    command->state &= ~tgt_command_async;
    auto const status = dispatch(host, *command);
    if ((command->state & tgt_command_async) != 0) continue;
    command->state |= tgt_command_async;
    target_cmd_io_done(command, status);
  }
}

int Logical_unit::report_reservations(scsi_cmd& command) {
  auto const cdb = cdb_of(command);
  auto const page = report(reservations_.state, cdb[1] & 0x1f);
  if (!page) return refuse(command, sense::invalid_field_in_cdb);
  return send_page(command, *page, get_be<2>(cdb, 7));
}

void Logical_unit::on_deferred(event_data* event) {
  auto& unit = *static_cast<Logical_unit*>(event->data);
  if (unit.fence_mark_ != 0) unit.finish_reserve_out();
  unit.next_reserve_out();
}

void Logical_unit::next_reserve_out() {
  while (!is_reserving_ && are_reservations_known_ && !reserve_outs_.empty()) {
    is_reserving_ = true;
    auto& command = *reserve_outs_.front();
    auto const port = port_of(command.session);
    if (port.empty()) {  // the session went away meanwhile
      answer_reserve_out(Status::busy, {});
      continue;
    }
    decision_ = decide(reservations_.state, port, cdb_of(command), bytes_of(command.out));
    if (!decision_.next) {
      answer_reserve_out(decision_.status, decision_.sense);
      continue;
    }
    reservation_store_->replace(reservations_.version, *decision_.next,
                                [this, alive = alive_](Outcome<void> const& result) {
                                  if (*alive) replaced(result);
                                });
  }
}

void Logical_unit::replaced(Outcome<void> const& result) {
  if (!result.has_value() && errc_of(result.error().code) == Errc::stale_version) {
    is_reserving_ = false;  // decided again on what the other gateway has stored
    load_reservations();
    return;
  }
  if (!result.has_value()) {
    log_error("pstorage: %s: reservations were not changed: %s\n", name_.c_str(),
              result.error().text.c_str());
    return answer_reserve_out(Status::busy, {});
  }
  reservations_ = {reservations_.version + 1, *decision_.next};
  raise(decision_.attentions);
  // Whoever fences somebody relies on it: what was let in before must have ended.
  fence_mark_ = decision_.fences && disk_ ? disk_->mark() : 0;
  finish_reserve_out();
}

void Logical_unit::finish_reserve_out() {
  if (fence_mark_ != 0 && disk_ && !disk_->is_drained(fence_mark_)) return;
  fence_mark_ = 0;
  answer_reserve_out(Status::good, {});
}

void Logical_unit::answer_reserve_out(Status status, Sense sense) {
  auto& command = *reserve_outs_.front();
  reserve_outs_.pop_front();
  is_reserving_ = false;
  if (status == Status::check_condition) sense_data_build(&command, sense.key, sense.code);
  tgt_add_sched_event(&deferred_);
  target_cmd_io_done(&command, status_of(status));
}

void Logical_unit::raise(std::vector<Attention> const& attentions) {
  if (attentions.empty()) return;
  for (auto* node = lun_.sessions.next; node != &lun_.sessions; node = node->next) {
    auto* const start =
        reinterpret_cast<unsigned char*>(node) - offsetof(tgt_session_lu, lu_siblings);
    auto const session = reinterpret_cast<tgt_session_lu*>(start)->session;
    auto const port = port_of(session);
    for (auto const& one : attentions) {
      if (one.port == port) ua_sense_add_it_nexus(session, &lun_, one.code);
    }
  }
}

}  // namespace pstorage::iscsi
