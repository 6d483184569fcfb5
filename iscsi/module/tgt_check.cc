#include "iscsi/module/tgt_check.h"

#include "iscsi/scsi.h"

namespace pstorage::iscsi {
namespace {

constexpr std::size_t limits_page = 0x30;  // B0, without its high bit

}  // namespace

std::string check_tgtd() {
  auto const* const known = get_backingstore_template("rdwr");
  if (known == nullptr) return "it has no backing store 'rdwr'";
  if (known->submit != &bs_thread_cmd_submit) return "struct backingstore_template differs";
  if (static_cast<unsigned long>(known->open_flags) != tgt_open_flags) {
    return "the open flags of 'rdwr' differ";
  }
  return {};
}

std::string check_lun(scsi_lu const& lun, tgt_backing_store const& ours) {
  if (lun.backing_store != &ours) return "struct scsi_lu differs (backing store)";
  if (lun.device_type.operations[opcode::inquiry].perform != &spc_inquiry) {
    return "struct device_type_template differs, or this is not a disk";
  }
  if (lun.perform != &target_cmd_perform) return "struct scsi_lu differs (end)";
  auto const* const page = lun.attributes.vpd[limits_page];
  if (page == nullptr || page->size != tgt_block_limits_bytes) return "struct lu_phy_attr differs";
  return {};
}

std::string check_command(scsi_cmd const& command) {
  if (command.owner != command.device->owner) return "struct scsi_cmd differs (target)";
  if (command.session_lu == nullptr || command.session_lu->lu != command.device ||
      command.session_lu->session != command.session) {
    return "struct scsi_cmd differs (session)";
  }
  return {};
}

}  // namespace pstorage::iscsi
