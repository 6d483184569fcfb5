// A session with a target over libiscsi, for the test tools.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

struct iscsi_context;
struct scsi_task;

namespace pstorage::iscsi {

/// One session. Its port name is the same for every process that uses the same initiator name.
/// Fails loudly: on any error of the session the process ends with one line and status 1.
class Initiator {
 public:
  /// `waits`: until the unit is ready, also after the session was lost and has come back.
  Initiator(std::string const& name, std::string const& url, bool waits = true);
  ~Initiator();
  Initiator(Initiator const&) = delete;
  Initiator& operator=(Initiator const&) = delete;

  iscsi_context* context() const { return context_; }
  int lun() const { return lun_; }
  /// Waits at most `ms` for the socket and handles what came.
  void turn(int ms);

 private:
  iscsi_context* context_;
  int lun_ = 0;
};

/// Prints `what` and ends the process.
[[noreturn]] void give_up(std::string const& what);

/// Is this answer worth sending the command again (unit attention, not ready, busy)?
bool is_worth_repeating(scsi_task const& task);
bool is_unit_attention(scsi_task const& task);
/// "GOOD", "RESERVATION CONFLICT", "CHECK CONDITION 5/2400".
std::string describe(scsi_task const& task);

}  // namespace pstorage::iscsi
