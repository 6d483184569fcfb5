// The tgtd of one target on this host: starting it with everything the cluster says, stopping it.
#pragma once

#include <map>
#include <string>

#include "core/result.h"
#include "iscsi/tool/target_config.h"
#include "iscsi/tool/tgtd_control.h"

namespace pstorage::iscsi {

/// Where things are on this host. PSTORAGE_ISCSI_DIR moves run below another directory.
struct Gateway_paths {
  std::string run;         // sockets and pid files: /run/pstorage/iscsi/CLUSTER
  std::string modules;     // has bs_pstorage.so and nothing else
  std::string nbd_socket;  // of pstorage-nbd
};
/// `nbd_socket`, `modules`: empty for the defaults (PSTORAGE_NBD_SOCKET or
/// /run/pstorage/CLUSTER/nbd.sock; PSTORAGE_TGT_MODULES, the build tree, or /usr/lib/pstorage/tgt).
Gateway_paths gateway_paths(std::string const& cluster, std::string const& nbd_socket,
                            std::string const& modules);

class Gateway {
 public:
  /// `host`: this one, as targets name it.
  Gateway(Gateway_paths paths, std::string const& host, Target const& target);

  /// The pid of this target's tgtd on this host; 0: it does not run.
  int pid() const;
  /// Starts tgtd, which keeps running, and tells it everything; one that stands by is made the
  /// active one, or started anew if it knows something else. After a failure nothing runs. Needs
  /// root. Errors: exists (it runs), not_found (no tgtd, no module, no NBD server), refused.
  Outcome<void> start(Replayed const& what);
  /// Starts one that stands by while another gateway serves, instead of one that does already.
  /// Errors: as above.
  Outcome<void> stand_by(Replayed const& what);
  bool is_standby() const;
  /// Does it stand by with something else than this?
  bool is_outdated(Replayed const& what) const;
  /// Kills it; nothing in it is volatile.
  Outcome<void> stop();

  Tgtd_control const& control() const { return control_; }
  Outcome<void> add_lun(unsigned number, Lun_with_size const& lun);
  /// Retries for a while as long as commands are under way.
  Outcome<void> remove_lun(unsigned number);

 private:
  Outcome<void> check_host() const;
  Outcome<void> launch();
  Outcome<void> replay(Replayed const& what);
  Outcome<void> run(Replayed const& what);
  Outcome<void> activate(Replayed const& what);
  std::string digest(Replayed const& what) const;
  std::string groups() const;
  [[noreturn]] void become_tgtd(int log) const;

  Gateway_paths const paths_;
  Target const target_;
  Outcome<Portal> const portal_;
  std::string const base_;  // run directory and target name
  Tgtd_control const control_;
};

}  // namespace pstorage::iscsi
