// One LUN of tgtd that is ours: takes its commands, gives them to Disk and Reservations.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "iscsi/disk.h"
#include "iscsi/lun_options.h"
#include "iscsi/module/nbd_store.h"
#include "iscsi/module/tgt_abi.h"
#include "iscsi/reservation_store.h"

namespace pstorage::iscsi {

/// Made by the backing store's init, destroyed by its exit. Thread: tgtd's loop. A command is
/// either answered by what perform() returns, or later by target_cmd_io_done(), never both and
/// never from inside perform().
class Logical_unit final : public Io_listener {
 public:
  Logical_unit(scsi_lu& lun, Lun_options options);
  ~Logical_unit() override;
  Logical_unit(Logical_unit const&) = delete;
  Logical_unit& operator=(Logical_unit const&) = delete;

  static Logical_unit& of(scsi_lu& lun);
  /// Remembers the unit behind `lun` (null: none).
  static void attach(scsi_lu& lun, Logical_unit* unit);

  /// Starts to connect to `uri`, or keeps it until this gateway is the active one. False: logged
  /// why not.
  bool open(std::string const& uri);
  void close();
  void io_finished(Io& io) override;
  std::uint64_t size_bytes() const { return options_.size_bytes; }

 private:
  static int perform(int host, scsi_cmd* command);
  static int configure(scsi_lu* lun, char* parameters);
  static void on_deferred(event_data* event);

  void take_over_operations();
  void describe();
  void describe_size();
  void grown(std::uint64_t bytes);
  int dispatch(int host, scsi_cmd& command);
  bool connect();

  // Several gateways.
  Access_state access_state();
  bool activate();
  int inquire(int host, scsi_cmd& command);
  int report_port_groups(scsi_cmd& command);
  bool is_refused(scsi_cmd& command);
  int start(scsi_cmd& command, Block_command const& block_command);
  Status conclude(Io& io);
  std::unique_ptr<Io> new_io();

  // Persistent reservations.
  bool open_reservations();
  void load_reservations();
  void release_held();
  int report_reservations(scsi_cmd& command);
  void next_reserve_out();
  void replaced(Outcome<void> const& result);
  void finish_reserve_out();
  void answer_reserve_out(Status status, Sense sense);
  void raise(std::vector<Attention> const& attentions);
  Port_name port_of(std::uint64_t session) const;

  scsi_lu& lun_;
  Lun_options options_;
  std::string const name_;  // for log lines: "target 1 LUN 2"
  bool is_checked_ = false;
  bool is_refused_layout_ = false;
  std::array<tgt_perform, 256> originals_{};
  int (*original_configure_)(scsi_lu*, char*) = nullptr;

  std::string uri_;
  Access_state last_state_ = Access_state::active;
  std::unique_ptr<Nbd_store> store_;
  std::unique_ptr<Disk> disk_;
  std::vector<std::unique_ptr<Io>> free_ios_;

  std::unique_ptr<Nbd_store> reservation_volume_;
  std::unique_ptr<Reservation_store> reservation_store_;
  Versioned_reservations reservations_;
  bool are_reservations_known_ = false;
  bool has_failed_to_load_ = false;
  std::deque<std::pair<int, scsi_cmd*>> held_;  // with their hosts; until they are known
  std::deque<scsi_cmd*> reserve_outs_;          // the first one is being worked on if is_reserving_
  bool is_reserving_ = false;
  Reserve_decision decision_;
  std::uint64_t fence_mark_ = 0;  // 0: the answer waits for no command
  event_data deferred_{};
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pstorage::iscsi
