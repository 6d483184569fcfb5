#include "tests/iscsi/initiator.h"

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>

#include <cstdio>
#include <cstdlib>

namespace pstorage::iscsi {

void give_up(std::string const& what) {
  std::fprintf(stderr, "iscsi_load: %s\n", what.c_str());
  std::exit(1);
}

Initiator::Initiator(std::string const& name, std::string const& url, bool waits)
    : context_(iscsi_create_context(name.c_str())) {
  if (context_ == nullptr) give_up("no memory for a session");
  auto* const parsed = iscsi_parse_full_url(context_, url.c_str());
  if (parsed == nullptr) give_up("bad URL " + url);
  lun_ = parsed->lun;
  iscsi_set_targetname(context_, parsed->target);
  iscsi_set_session_type(context_, ISCSI_SESSION_NORMAL);
  iscsi_set_header_digest(context_, ISCSI_HEADER_DIGEST_NONE);
  iscsi_set_isid_en(context_, 0x5053, 1);
  iscsi_set_initial_r2t(context_, ISCSI_INITIAL_R2T_NO);
  if (parsed->user[0] != 0) {
    iscsi_set_initiator_username_pwd(context_, parsed->user, parsed->passwd);
  }
  std::string const portal = parsed->portal;
  iscsi_destroy_url(parsed);
  bool const is_in =
      waits ? iscsi_full_connect_sync(context_, portal.c_str(), lun_) == 0
            : iscsi_connect_sync(context_, portal.c_str()) == 0 && iscsi_login_sync(context_) == 0;
  if (!is_in) {
    give_up("cannot log in to " + url + ": " + iscsi_get_error(context_));
  }
}

Initiator::~Initiator() {
  iscsi_logout_sync(context_);
  iscsi_destroy_context(context_);
}

void Initiator::turn(int ms) {
  int const events = iscsi_which_events(context_);
  pollfd waiting{.fd = iscsi_get_fd(context_), .events = static_cast<short>(events), .revents = 0};
  if (events == 0) waiting.fd = -1;  // between two attempts to reconnect
  if (::poll(&waiting, 1, events == 0 ? std::min(ms, 100) : ms) < 0) give_up("poll failed");
  if (iscsi_service(context_, waiting.fd < 0 ? 0 : waiting.revents) != 0) {
    give_up(std::string("the session failed: ") + iscsi_get_error(context_));
  }
}

bool is_unit_attention(scsi_task const& task) {
  return task.status == SCSI_STATUS_CHECK_CONDITION && task.sense.key == SCSI_SENSE_UNIT_ATTENTION;
}

bool is_worth_repeating(scsi_task const& task) {
  return is_unit_attention(task) || task.status == SCSI_STATUS_BUSY ||
         (task.status == SCSI_STATUS_CHECK_CONDITION && task.sense.key == SCSI_SENSE_NOT_READY);
}

std::string describe(scsi_task const& task) {
  if (task.status == SCSI_STATUS_GOOD) return "GOOD";
  if (task.status == SCSI_STATUS_RESERVATION_CONFLICT) return "RESERVATION CONFLICT";
  if (task.status == SCSI_STATUS_BUSY) return "BUSY";
  char text[64];
  std::snprintf(text, sizeof(text), "%s %x/%04x",
                task.status == SCSI_STATUS_CHECK_CONDITION ? "CHECK CONDITION" : "status",
                static_cast<unsigned>(task.sense.key), static_cast<unsigned>(task.sense.ascq));
  return text;
}

}  // namespace pstorage::iscsi
