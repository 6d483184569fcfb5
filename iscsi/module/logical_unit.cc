#include "iscsi/module/logical_unit.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "iscsi/big_endian.h"
#include "iscsi/module/tgt_check.h"
#include "iscsi/volume_reservation_store.h"

namespace pstorage::iscsi {
namespace {

constexpr std::uint32_t cdb_bytes_max = 16;
constexpr std::string_view parameter_prefix = "targetOps ";

// What tgtd reports about these opcodes; the commands themselves arrive in perform().
std::array<tgt_service_action, 5> reserve_in_actions{};
std::array<tgt_service_action, 8> reserve_out_actions{};

std::span<std::uint8_t> bytes_of(tgt_data const& data) {
  // tgtd keeps pointers as numbers here.
  auto* const start = reinterpret_cast<std::uint8_t*>(data.buffer);  // NOLINT
  return {start, start == nullptr ? 0 : data.length};
}

/// What the initiator learns: `actual` bytes were to be moved.
void set_residual(tgt_data& data, std::uint64_t actual) {
  auto const expected = data.length;
  auto const moved = static_cast<std::uint32_t>(std::min<std::uint64_t>(actual, expected));
  data.transferred = moved;
  data.residual = static_cast<std::int32_t>(static_cast<std::int64_t>(expected) -
                                            static_cast<std::int64_t>(actual));
}

std::span<std::uint8_t const> cdb_of(scsi_cmd const& command) {
  return {command.cdb, std::min(static_cast<std::uint32_t>(command.cdb_bytes), cdb_bytes_max)};
}

int status_of(Status status) { return static_cast<int>(status); }

int refuse(scsi_cmd& command, Sense sense) {
  set_residual(command.in, 0);
  set_residual(command.out, 0);
  sense_data_build(&command, sense.key, sense.code);
  return status_of(Status::check_condition);
}

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
  store_ = std::make_unique<Nbd_store>(name_, uri, options_.size_bytes, options_.patience_seconds,
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
  put_page(lun_, 0x83, identification_page(options_.uuid));
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
    if (unit.store_ && size.value() > unit.options_.size_bytes) unit.store_->grow(size.value());
    return tgt_success;
  }
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
      sense_data_build(&command, io.sense.key, io.sense.code);
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

// ---------------------------------------------------------------- persistent reservations

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
  auto const to = bytes_of(command.in);
  auto const wanted = std::min<std::size_t>(page->size(), get_be<2>(cdb, 7));
  std::copy_n(page->begin(), std::min(wanted, to.size()), to.begin());
  set_residual(command.in, wanted);
  return status_of(Status::good);
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
