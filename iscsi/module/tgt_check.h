// Is this the tgtd whose structures we know? Pointers that tgtd keeps to its own exported functions
// pin its layout better than a version string could.
#pragma once

#include <string>

#include "iscsi/module/tgt_abi.h"

namespace pstorage::iscsi {

/// When the module is loaded. Empty: yes; else one clause what differs.
std::string check_tgtd();
/// When a LUN is made with our backing store `ours`, before anything of it was changed.
std::string check_lun(scsi_lu const& lun, tgt_backing_store const& ours);
/// At a LUN's first command.
std::string check_command(scsi_cmd const& command);

}  // namespace pstorage::iscsi
