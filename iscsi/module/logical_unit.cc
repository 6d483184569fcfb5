#include "iscsi/module/logical_unit.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "iscsi/big_endian.h"
#include "iscsi/module/tgt_check.h"
#include "iscsi/module/tgt_command.h"
#include "iscsi/volume_reservation_store.h"

namespace pstorage::iscsi {
namespace {

constexpr std::string_view parameter_prefix = "targetOps ";

// What tgtd reports about these opcodes; the commands themselves arrive in perform().
std::array<tgt_service_action, 5> reserve_in_actions{};
std::array<tgt_service_action, 8> reserve_out_actions{};
std::array<tgt_service_action, 8> maintenance_actions{};

std::string name_of(scsi_lu const& lun) {
  auto const* const target = reinterpret_cast<tgt_target_head const*>(lun.owner);
  return std::string(target->name == nullptr ? "?" : target->name) + " LUN " +
         std::to_string(lun.lun);
}

void put_page(scsi_lu& lun, std::size_t code, std::vector<std::uint8_t> const& content) {
  auto*& page = lun.attributes.vpd[code & 0x7f];
  auto* const fresh = alloc_vpd(static_cast<std::uint16_t>(content.size()));
  if (fresh == nullptr) return;
  std::copy(content.begin(), content.end(), reinterpret_cast<std::uint8_t*>(fresh + 1));
  fresh->update = [](scsi_lu*, void*) {};  // tgtadm's attributes do not change identities
  std::free(page);
  page = fresh;
}

/// Only so that REPORT SUPPORTED OPERATION CODES has it.
void add_port_groups_action(tgt_operation& operation) {
  auto const* from = operation.service_actions;
  for (std::size_t i = 0; from != nullptr && from->perform != nullptr; ++i, ++from) {
    if (from->action == report_port_groups_action || i + 2 >= maintenance_actions.size()) return;
    maintenance_actions[i] = *from;
    maintenance_actions[i + 1] = {report_port_groups_action, from->perform};
    maintenance_actions[i + 2] = {};
  }
  operation.service_actions = maintenance_actions.data();
}

/// Which commands are let through while another session holds a RESERVE(6).
bool ignores_reserve_6(std::uint8_t code) {
  return code == opcode::inquiry || code == opcode::request_sense || code == opcode::report_luns ||
         code == opcode::reserve_6 || code == opcode::release_6;
}

}  // namespace

Logical_unit::Logical_unit(scsi_lu& lun, Lun_options options)
    : lun_(lun), options_(std::move(options)), name_(name_of(lun)) {
  tgt_init_sched_event(&deferred_, &Logical_unit::on_deferred, this);
  describe();
  take_over_operations();
}

Logical_unit::~Logical_unit() {
  *alive_ = false;
  tgt_remove_sched_event(&deferred_);
}

Logical_unit& Logical_unit::of(scsi_lu& lun) {
  Logical_unit* unit = nullptr;
  std::memcpy(&unit, &lun + 1, sizeof(unit));
  return *unit;
}

void Logical_unit::attach(scsi_lu& lun, Logical_unit* unit) {
  std::memcpy(&lun + 1, &unit, sizeof(unit));
}

bool Logical_unit::open(std::string const& uri) {
  uri_ = uri;
  // The volume is another gateway's: whoever opens it takes its lease.
  return options_.groups.is_standby() || connect();
}

bool Logical_unit::connect() {
  store_ = std::make_unique<Nbd_store>(name_, uri_, options_.size_bytes, options_.patience_seconds,
                                       [this](std::uint64_t bytes) { grown(bytes); });
  if (!store_->is_working()) {
    store_.reset();
    return false;
  }
  disk_ = std::make_unique<Disk>(*store_, *this,
                                 Geometry{.size = options_.size_bytes,
                                          .block = 1u << lun_.block_shift,
                                          .is_read_only = options_.is_read_only});
  return open_reservations();
}

bool Logical_unit::open_reservations() {
  if (options_.reservations_uri.empty()) {
    reservation_store_ = options_.reservations_path.empty()
                             ? make_memory_store()
                             : make_file_store(options_.reservations_path);
  } else {
    reservation_volume_ = std::make_unique<Nbd_store>(
        name_ + " reservations", options_.reservations_uri, reservation_volume_bytes,
        options_.patience_seconds, [](std::uint64_t) {});
    if (!reservation_volume_->is_working()) return false;
    reservation_store_ = std::make_unique<Volume_reservation_store>(*store_, *reservation_volume_);
  }
  load_reservations();
  return true;
}

void Logical_unit::close() {
  are_reservations_known_ = false;
  has_failed_to_load_ = true;
  disk_.reset();
  reservation_volume_.reset();
  store_.reset();
}

// ---------------------------------------------------------------- what initiators see

void Logical_unit::describe() {
  auto& attributes = lun_.attributes;
  auto const uuid = uuid_text(options_.uuid);
  std::snprintf(attributes.vendor_id, sizeof(attributes.vendor_id), "PSTORAGE");
  std::snprintf(attributes.product_id, sizeof(attributes.product_id), "VIRTUAL-DISK");
  std::snprintf(attributes.product_rev, sizeof(attributes.product_rev), "0001");
  std::snprintf(attributes.scsi_id, sizeof(attributes.scsi_id), "%s", uuid.c_str());
  std::snprintf(attributes.scsi_sn, sizeof(attributes.scsi_sn), "%s", uuid.c_str());
  attributes.thin_provisioning = 1;
  attributes.read_only = options_.is_read_only ? 1 : 0;
  attributes.rotation_rate = 1;
  attributes.keeps_physical_block_exponent = 1;
  attributes.physical_block_exponent =
      lun_.block_shift < 12 ? static_cast<unsigned char>(12 - lun_.block_shift) : 0;
  put_page(lun_, 0x80, serial_number_page(options_.uuid));
  put_page(lun_, 0x83, identification_page(options_.uuid, options_.groups));
  put_page(lun_, 0xb0, block_limits_page(1u << lun_.block_shift));
  put_page(lun_, 0xb1, characteristics_page());
  put_page(lun_, 0xb2, provisioning_page());
  describe_size();
}

void Logical_unit::describe_size() {
  auto const blocks = options_.size_bytes >> lun_.block_shift;
  std::span<std::uint8_t> const descriptor(lun_.mode_block_descriptor);
  put_be<4>(descriptor, 0, std::min<std::uint64_t>(blocks, 0xffffffff));
  put_be<4>(descriptor, 4, 1u << lun_.block_shift);
}

void Logical_unit::take_over_operations() {
  auto* const operations = lun_.device_type.operations;
  for (std::size_t i = 0; i < reserve_in_actions.size() - 1; ++i) {
    reserve_in_actions[i] = {static_cast<std::uint32_t>(i), &Logical_unit::perform};
  }
  for (std::size_t i = 0; i < reserve_out_actions.size() - 1; ++i) {
    reserve_out_actions[i] = {static_cast<std::uint32_t>(i), &Logical_unit::perform};
  }
  add_port_groups_action(operations[opcode::maintenance_in]);
  operations[opcode::persistent_reserve_in].service_actions = reserve_in_actions.data();
  operations[opcode::persistent_reserve_out].service_actions = reserve_out_actions.data();
  for (std::size_t code = 0; code < originals_.size(); ++code) {
    originals_[code] = operations[code].perform;
    bool const is_illegal = originals_[code] == &spc_illegal_op;
    if (!is_illegal || code == opcode::compare_and_write) {
      operations[code].perform = &Logical_unit::perform;
    }
  }
  original_configure_ = lun_.device_type.lu_config;
  lun_.device_type.lu_config = &Logical_unit::configure;
}

int Logical_unit::configure(scsi_lu* lun, char* parameters) {
  auto& unit = of(*lun);
  std::string_view text = parameters == nullptr ? "" : parameters;
  if (text.starts_with(parameter_prefix)) text.remove_prefix(parameter_prefix.size());
  while (text.ends_with(',')) text.remove_suffix(1);  // tgtadm's
  if (text.starts_with(size_parameter)) {
    auto const size = parse_size_parameter(text);
    if (!size.has_value() || size.value() < unit.options_.size_bytes) {
      log_error("pstorage: %s: refused: %s\n", unit.name_.c_str(),
                size.has_value() ? "a LUN does not shrink" : size.error().text.c_str());
      return tgt_invalid_request;
    }
    if (size.value() == unit.options_.size_bytes) return tgt_success;
    if (unit.store_) {
      unit.store_->grow(size.value());
    } else {
      unit.grown(size.value());  // in standby
    }
    return tgt_success;
  }
  if (text == activate_parameter) return unit.activate() ? tgt_success : tgt_invalid_request;
  if (text.find("path=") != std::string_view::npos) {
    log_error(
        "pstorage: %s: refused: its volume cannot be exchanged; delete the LUN and make it "
        "again\n",
        unit.name_.c_str());
    return tgt_invalid_request;
  }
  return unit.original_configure_(lun, parameters);
}

void Logical_unit::grown(std::uint64_t bytes) {
  options_.size_bytes = bytes;
  lun_.size = bytes;
  describe_size();
  if (disk_) disk_->set_size(bytes);
  ua_sense_add_other_it_nexus(0, &lun_, attention::capacity_changed);
}

// ---------------------------------------------------------------- commands

int Logical_unit::perform(int host, scsi_cmd* command) {
  return of(*command->device).dispatch(host, *command);
}

int Logical_unit::dispatch(int host, scsi_cmd& command) {
  if (!is_checked_) {
    is_checked_ = true;
    auto const why = check_command(command);
    is_refused_layout_ = !why.empty();
    if (is_refused_layout_) {
      log_error("pstorage: %s: this tgtd is not one we know (%s); no command is served\n",
                name_.c_str(), why.c_str());
    }
  }
  if (is_refused_layout_) return status_of(Status::busy);
  auto const cdb = cdb_of(command);
  if (options_.groups.is_any()) {
    auto const state = access_state();
    if (asks_for_port_groups(cdb)) return report_port_groups(command);
    if (state != Access_state::active && !works_in_standby(cdb)) {
      return refuse(command, state == Access_state::standby ? sense::standby : sense::unavailable);
    }
    if (cdb[0] == opcode::inquiry) return inquire(host, command);
    if (state != Access_state::active) return originals_[cdb[0]](host, &command);
  }
  if (!are_reservations_known_ && !ignores_reserve_6(cdb[0])) {
    if (has_failed_to_load_) return status_of(Status::busy);
    command.state |= tgt_command_async;
    held_.emplace_back(host, &command);
    return status_of(Status::good);
  }
  if (is_refused(command)) return status_of(Status::reservation_conflict);
  if (cdb[0] == opcode::persistent_reserve_in) return report_reservations(command);
  if (cdb[0] == opcode::persistent_reserve_out) {
    command.state |= tgt_command_async;
    reserve_outs_.push_back(&command);
    tgt_add_sched_event(&deferred_);
    return status_of(Status::good);
  }
  std::optional<Sense> refused;
  auto const block_command = parse(cdb, refused);
  if (!block_command) return originals_[cdb[0]](host, &command);
  if (refused) return refuse(command, *refused);
  return start(command, *block_command);
}

bool Logical_unit::is_refused(scsi_cmd& command) {
  auto const cdb = cdb_of(command);
  auto const& state = reservations_.state;
  if (!ignores_reserve_6(cdb[0]) && device_reserved(&command) != 0) return true;
  if (cdb[0] == opcode::reserve_6 || cdb[0] == opcode::release_6) {
    return conflicts_with_reserve_6(state);
  }
  return state.holder && conflicts(state, port_of(command.session), cdb);
}

std::unique_ptr<Io> Logical_unit::new_io() {
  if (free_ios_.empty()) return std::make_unique<Io>();
  auto io = std::move(free_ios_.back());
  free_ios_.pop_back();
  return io;
}

int Logical_unit::start(scsi_cmd& command, Block_command const& block_command) {
  if (!disk_ || lun_.attributes.online == 0) return refuse(command, sense::becoming_ready);
  // The second one is set by initiators (SWP of the control mode page).
  disk_->set_read_only(lun_.attributes.read_only != 0 || lun_.attributes.write_protected != 0);
  auto* const io = new_io().release();  // owned by the command until it is concluded
  io->command = block_command;
  io->out = bytes_of(command.out);
  io->in = bytes_of(command.in);
  io->owner = &command;
  if (disk_->start(*io)) return status_of(conclude(*io));
  command.state |= tgt_command_async;
  return status_of(Status::good);
}

/// Writes the outcome into the command and takes `io` back.
Status Logical_unit::conclude(Io& io) {
  std::unique_ptr<Io> owned(&io);
  auto& command = *static_cast<scsi_cmd*>(io.owner);
  auto const status = io.status;
  if (status == Status::good) {
    auto const moved = transfer_bytes(io.command, disk_->geometry());
    bool const reads = io.command.operation == Operation::read ||
                       io.command.operation == Operation::get_lba_status;
    set_residual(command.in, reads ? io.in_bytes : 0);
    set_residual(command.out, reads ? 0 : moved);
  } else {
    set_residual(command.in, 0);
    set_residual(command.out, 0);
    if (io.information) {
      sense_data_build_with_info(&command, io.sense.key, io.sense.code, *io.information);
    } else {
      // With other paths to the disk nobody shall wait for this one.
      bool const is_lost = options_.groups.is_any() && io.sense == sense::becoming_ready;
      auto const& why = is_lost ? sense::unavailable : io.sense;
      sense_data_build(&command, why.key, why.code);
    }
  }
  free_ios_.push_back(std::move(owned));
  return status;
}

void Logical_unit::io_finished(Io& io) {
  auto& command = *static_cast<scsi_cmd*>(io.owner);
  auto const status = conclude(io);
  target_cmd_io_done(&command, status_of(status));
  if (fence_mark_ != 0) tgt_add_sched_event(&deferred_);
}

// ---------------------------------------------------------------- several gateways

Access_state Logical_unit::access_state() {
  auto const state = options_.groups.is_standby()    ? Access_state::standby
                     : !store_ || store_->is_stuck() ? Access_state::unavailable
                                                     : Access_state::active;
  bool const was_lost = std::exchange(last_state_, state) == Access_state::unavailable;
  if (was_lost && state != Access_state::unavailable) {
    ua_sense_add_other_it_nexus(0, &lun_, attention::access_state_changed);
  }
  return state;
}

bool Logical_unit::activate() {
  if (!options_.groups.is_any()) return false;
  if (!options_.groups.is_standby()) return true;
  options_.groups.active = options_.groups.own;
  if (!connect()) return false;
  last_state_ = Access_state::active;
  ua_sense_add_other_it_nexus(0, &lun_, attention::access_state_changed);
  return true;
}

int Logical_unit::inquire(int host, scsi_cmd& command) {
  constexpr std::size_t groups_byte = 5;
  constexpr std::uint8_t implicit = 0x10;  // TPGS
  constexpr std::uint8_t wants_page = 0x01;
  int const status = originals_[opcode::inquiry](host, &command);
  auto const answer = bytes_of(command.in);
  bool const is_standard = (cdb_of(command)[1] & wants_page) == 0;
  if (status == 0 && is_standard && answer.size() > groups_byte) answer[groups_byte] |= implicit;
  return status;
}

int Logical_unit::report_port_groups(scsi_cmd& command) {
  constexpr std::uint8_t format_bits = 0xe0;
  constexpr std::uint8_t extended = 0x20;
  auto const cdb = cdb_of(command);
  auto const format = cdb[1] & format_bits;
  if (format != 0 && format != extended) return refuse(command, sense::invalid_field_in_cdb);
  return send_page(command, report(options_.groups, last_state_, format == extended),
                   get_be<4>(cdb, 6));
}

}  // namespace pstorage::iscsi
