// What pstorage-iscsi's verbs do.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "blockdev/volume/limit_options.h"
#include "blockdev/volume/tool_session.h"
#include "blockdev/volume/volume_work.h"
#include "core/cli/mds_call.h"
#include "iscsi/tool/cluster_state.h"
#include "iscsi/tool/gateway.h"

namespace pstorage::iscsi {

/// Everything the command line can say; each verb uses its part.
struct Command_options {
  std::string cluster;
  std::string bootstrap;
  std::string nbd_socket;
  std::string modules;
  std::string target;  // -t
  std::string name;    // -n
  std::string address;
  std::string lun;
  std::string size;
  std::string volume;
  std::string format = "ploop";
  std::string snapshot;
  volume::Limit_options limits;
  std::string user;
  std::string secret_file;
  std::string initiator;
  std::string failover;  // "on", "off"; empty: as it is
  std::string device;    // "none": none any more
  bool all = false;
  bool json = false;
  bool mutual = false;
  bool keep = false;
  bool standby = false;
  std::string host;  // empty: this one
};

/// One run of the program. Every verb: success, or one line what failed, why and what to do.
class Commands {
 public:
  explicit Commands(Command_options const& options);

  Outcome<void> create();
  Outcome<void> remove();
  Outcome<void> set();
  Outcome<void> register_here();
  Outcome<void> unregister();
  Outcome<void> portal_add();
  Outcome<void> portal_del();
  Outcome<void> start();
  Outcome<void> stop();
  Outcome<void> list();
  Outcome<void> lun_add();
  Outcome<void> lun_grow();
  Outcome<void> lun_del();
  Outcome<void> lun_limit();
  Outcome<void> snapshot_create();
  Outcome<void> snapshot_list();
  Outcome<void> snapshot_switch();
  Outcome<void> snapshot_delete();
  Outcome<void> account_add();
  Outcome<void> account_del();
  Outcome<void> account_list();
  Outcome<void> account_bind(bool binds);
  Outcome<void> acl_change(bool allows);

 private:
  Outcome<void> set_moving(Target& target) const;
  Outcome<void> stand_by(Target const& target);
  struct Row {  // of the list
    Target target;
    std::string status;
    std::map<unsigned, Volume_info> volumes;
  };

  Outcome<void> prepare();  // names checked, cluster reachable
  Outcome<Target> load();
  Outcome<Lun_with_size> known_lun(Target const& target, unsigned number);
  /// What changes volumes; connects when it is first needed.
  Outcome<volume::Volume_work> work();
  Outcome<void> make_volume(std::string const& name, std::uint64_t size);
  /// The volume of LUN -l of target -t, which is also put into `loaded`.
  Outcome<volume::Volume_name> lun_volume(Target* loaded = nullptr);
  Outcome<void> check_is_here(Target const& target) const;
  Outcome<void> check_is_stopped(Target const& target) const;
  Gateway gateway(Target const& target) const;
  bool runs_here(Target const& target) const;
  Outcome<Row> describe(std::string const& name);
  void print_table_of(std::vector<Row> const& rows) const;
  void print_target(Row const& row) const;

  Command_options const& options_;
  std::string cluster_;
  std::string host_;
  Gateway_paths paths_;
  std::unique_ptr<cli::Mds_caller> caller_;
  Cluster_state state_;
  std::unique_ptr<volume::Tool_session> session_;
};

/// One line of `path`, or asked for on the terminal without echo when `path` is empty; never from
/// the command line, where others see it.
Outcome<std::string> read_secret(std::string const& path, std::string const& prompt);

}  // namespace pstorage::iscsi
