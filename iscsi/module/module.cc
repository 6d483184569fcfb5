// bs_pstorage.so: what tgtd calls when it loads the module and when LUNs come and go.
#include <memory>
#include <string>

#include "iscsi/module/logical_unit.h"
#include "iscsi/module/tgt_check.h"

namespace pstorage::iscsi {
namespace {

tgt_backing_store* registered = nullptr;

int open_lun(scsi_lu* lun, char* path, int* fd, std::uint64_t* size) {
  auto& unit = Logical_unit::of(*lun);
  *fd = -1;
  *size = unit.size_bytes();
  return unit.open(path) ? 0 : -1;
}

void close_lun(scsi_lu* lun) { Logical_unit::of(*lun).close(); }

int init_lun(scsi_lu* lun, char* options) {
  Logical_unit::attach(*lun, nullptr);
  auto const why = check_lun(*lun, *registered);
  if (!why.empty()) {
    log_error("pstorage: LUN refused: this tgtd is not one we know: %s\n", why.c_str());
    return tgt_invalid_request;
  }
  auto parsed = parse_lun_options(options == nullptr ? "" : options);
  if (!parsed.has_value()) {
    log_error("pstorage: LUN refused: %s\n", parsed.error().text.c_str());
    return tgt_invalid_request;
  }
  auto unit = std::make_unique<Logical_unit>(*lun, std::move(parsed).value());
  Logical_unit::attach(*lun, unit.release());
  return tgt_success;
}

void exit_lun(scsi_lu* lun) {
  std::unique_ptr<Logical_unit> const unit(&Logical_unit::of(*lun));
  Logical_unit::attach(*lun, nullptr);
}

int submit(scsi_cmd* /*command*/) { return -1; }  // never called: every operation is ours

}  // namespace
}  // namespace pstorage::iscsi

extern "C" __attribute__((visibility("default"))) void register_bs_module() {
  using namespace pstorage::iscsi;
  static tgt_backing_store store{.name = "pstorage",
                                 .private_bytes = sizeof(void*),
                                 .open = &open_lun,
                                 .close = &close_lun,
                                 .init = &init_lun,
                                 .exit = &exit_lun,
                                 .submit = &submit,
                                 .open_flags = 0,
                                 .supported_operations = {},
                                 .siblings = {}};
  if (registered != nullptr) return;  // a second time would make a knot in tgtd's list
  auto const why = check_tgtd();
  if (!why.empty()) {
    log_error("pstorage: backing store not registered: this tgtd is not one we know: %s\n",
              why.c_str());
    return;
  }
  registered = &store;
  register_backingstore_template(&store);
}
