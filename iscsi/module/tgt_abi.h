// What we use of tgtd 1.0.79 to 1.0.97, in our own words: packages ship no headers. LP64. Checked
// here against known offsets, and when the module is loaded against tgtd's own symbols
// (tgt_check.h).
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct scsi_lu;
struct scsi_cmd;
struct target;

using tgt_perform = int (*)(int host, scsi_cmd* command);

struct tgt_list {
  tgt_list* next;
  tgt_list* previous;
};

struct tgt_service_action {
  std::uint32_t action;
  tgt_perform perform;  // null: end of the table
};

struct tgt_operation {
  tgt_perform perform;
  tgt_service_action* service_actions;
  std::uint8_t reservation_conflicts;
};

struct tgt_device_type {  // each LUN has its own copy
  unsigned char type;
  int (*lu_init)(scsi_lu*);
  void (*lu_exit)(scsi_lu*);
  int (*lu_config)(scsi_lu*, char*);
  int (*lu_online)(scsi_lu*);
  int (*lu_offline)(scsi_lu*);
  tgt_perform pass_through;
  tgt_operation operations[256];
  tgt_list siblings;
};

struct tgt_backing_store {
  char const* name;
  int private_bytes;  // allocated behind struct scsi_lu
  int (*open)(scsi_lu*, char* path, int* fd, std::uint64_t* size);
  void (*close)(scsi_lu*);
  int (*init)(scsi_lu*, char* options);
  void (*exit)(scsi_lu*);
  int (*submit)(scsi_cmd*);
  int open_flags;
  unsigned long supported_operations[4];  // empty: all
  tgt_list siblings;
};

struct tgt_vpd {  // its content follows
  std::uint16_t size;
  void (*update)(scsi_lu*, void*);
};

struct tgt_attributes {
  char scsi_id[37];
  char scsi_sn[37];
  std::uint64_t numeric_id;
  char vendor_id[9];
  char product_id[17];
  char product_rev[5];
  std::uint16_t version_descriptors[8];
  unsigned char device_type;
  char qualifier;
  char removable;
  char read_only;
  char write_protected;
  char thin_provisioning;
  char online;
  char descriptor_sense;
  unsigned char physical_block_exponent;
  char keeps_physical_block_exponent;
  std::uint16_t lowest_aligned_lba;
  std::uint16_t rotation_rate;
  tgt_vpd* vpd[128];
};

struct scsi_lu {
  int fd;
  std::uint64_t address;
  std::uint64_t size;
  std::uint64_t lun;
  char* path;
  int open_flags;
  unsigned int block_shift;
  tgt_list siblings;
  tgt_list sessions;  // of tgt_session_lu, through its lu_siblings
  unsigned char queue[32];
  std::uint64_t reserve_id;
  tgt_device_type device_type;
  tgt_backing_store* backing_store;
  target* owner;
  std::uint8_t mode_block_descriptor[8];
  tgt_list mode_pages;
  tgt_attributes attributes;
  tgt_list registrations;
  std::uint32_t reservation_generation;
  void* reservation_holder;
  void* device_private;
  tgt_perform perform;
  void (*done)(target*, scsi_cmd*);
};

struct tgt_session_lu {  // one session's view of one LUN
  scsi_lu* lu;
  std::uint64_t session;
  unsigned char statistics[64];
  tgt_list session_siblings;
  tgt_list lu_siblings;
  tgt_list attentions;
  int prevents_removal;
};

struct tgt_data {
  std::uint64_t buffer;
  std::uint32_t length;
  std::uint32_t transferred;
  std::int32_t residual;
};

struct scsi_cmd {
  target* owner;
  tgt_list session_commands;
  tgt_list queue;
  std::uint64_t lun_number;
  scsi_lu* device;
  unsigned long state;
  int direction;
  tgt_data in;
  tgt_data out;
  std::uint64_t session;
  std::uint64_t offset;
  std::uint32_t bytes;  // 32 bits: overflows, never used
  std::uint8_t* cdb;
  int cdb_bytes;
  std::uint8_t lun[8];
  int attribute;
  std::uint64_t tag;
  int result;
  void* management;
  unsigned char sense[252];
  int sense_bytes;
  tgt_list store_list;
  void* nexus;
  tgt_session_lu* session_lu;
};

struct tgt_target_head {
  char* name;
  int tid;
  int lid;
};

struct event_data {
  void (*handler)(event_data*);
  std::uint64_t scheduled;
  void* data;
  tgt_list siblings;
};

int register_backingstore_template(tgt_backing_store*);
tgt_backing_store* get_backingstore_template(char const* name);
int bs_thread_cmd_submit(scsi_cmd*);
int spc_inquiry(int, scsi_cmd*);
int target_cmd_perform(int, scsi_cmd*);
int spc_illegal_op(int, scsi_cmd*);
tgt_vpd* alloc_vpd(std::uint16_t size);
int device_reserved(scsi_cmd*);
void sense_data_build(scsi_cmd*, std::uint8_t key, std::uint16_t code);
void sense_data_build_with_info(scsi_cmd*, std::uint8_t key, std::uint16_t code, std::uint64_t);
void target_cmd_io_done(scsi_cmd*, int status);
void ua_sense_add_it_nexus(std::uint64_t session, scsi_lu*, std::uint16_t code);
void ua_sense_add_other_it_nexus(std::uint64_t session, scsi_lu*, std::uint16_t code);
int iscsi_transportid(int tid, std::uint64_t session, char* buffer, int size);
int tgt_event_add(int fd, int events, void (*handler)(int fd, int events, void*), void*);
void tgt_event_del(int fd);
int tgt_event_modify(int fd, int events);
void tgt_init_sched_event(event_data*, void (*handler)(event_data*), void* data);
void tgt_add_sched_event(event_data*);
void tgt_remove_sched_event(event_data*);
void log_error(char const* format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(char const* format, ...) __attribute__((format(printf, 1, 2)));

}  // extern "C"

namespace pstorage::iscsi {

inline constexpr unsigned long tgt_command_async = 1ul << 2;
inline constexpr unsigned long tgt_open_flags = 04010000 | 040000;  // O_SYNC | O_DIRECT
inline constexpr std::uint16_t tgt_block_limits_bytes = 0x3c;
inline constexpr int tgt_success = 0;
inline constexpr int tgt_invalid_request = 17;

static_assert(sizeof(scsi_lu) == 7608 && sizeof(scsi_cmd) == 480);
static_assert(sizeof(tgt_backing_store) == 112 && offsetof(tgt_backing_store, submit) == 48);
static_assert(sizeof(tgt_device_type) == 6216 && offsetof(tgt_device_type, operations) == 56);
static_assert(sizeof(tgt_operation) == 24 && sizeof(tgt_service_action) == 16);
static_assert(sizeof(tgt_attributes) == 1176 && sizeof(tgt_session_lu) == 136);
static_assert(sizeof(event_data) == 40 && sizeof(tgt_vpd) == 16);
static_assert(offsetof(scsi_lu, size) == 16 && offsetof(scsi_lu, block_shift) == 44);
static_assert(offsetof(scsi_lu, sessions) == 64 && offsetof(scsi_lu, reserve_id) == 112);
static_assert(offsetof(scsi_lu, device_type) == 120 && offsetof(scsi_lu, backing_store) == 6336);
static_assert(offsetof(scsi_lu, owner) == 6344 && offsetof(scsi_lu, attributes) == 6376);
static_assert(offsetof(scsi_lu, mode_block_descriptor) == 6352);
static_assert(offsetof(scsi_lu, reservation_holder) == 7576 && offsetof(scsi_lu, perform) == 7592);
static_assert(offsetof(tgt_attributes, numeric_id) == 80 && offsetof(tgt_attributes, vpd) == 152);
static_assert(offsetof(tgt_attributes, read_only) == 139 &&
              offsetof(tgt_attributes, online) == 142);
static_assert(offsetof(tgt_attributes, physical_block_exponent) == 144);
static_assert(offsetof(tgt_session_lu, session) == 8 &&
              offsetof(tgt_session_lu, lu_siblings) == 96);
static_assert(offsetof(scsi_cmd, device) == 48 && offsetof(scsi_cmd, state) == 56);
static_assert(offsetof(scsi_cmd, in) == 72 && offsetof(scsi_cmd, out) == 96);
static_assert(offsetof(scsi_cmd, session) == 120 && offsetof(scsi_cmd, cdb) == 144);
static_assert(offsetof(scsi_cmd, cdb_bytes) == 152 && offsetof(scsi_cmd, sense) == 192);
static_assert(offsetof(scsi_cmd, sense_bytes) == 444 && offsetof(scsi_cmd, session_lu) == 472);

}  // namespace pstorage::iscsi
