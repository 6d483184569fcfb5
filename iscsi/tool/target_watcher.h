// The shell of Failover: looks at the cluster and at this host once a second and carries out what
// is decided.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "blockdev/volume/tool_session.h"
#include "core/log.h"
#include "iscsi/tool/cluster_state.h"
#include "iscsi/tool/failover.h"
#include "iscsi/tool/gateway.h"

namespace pstorage::iscsi {

struct Watcher_options {
  std::string cluster;
  std::string bootstrap;
  std::string nbd_socket;  // empty: the default
  std::string modules;
};

/// Thread: one. Its calls run the session's loop while they wait, so that the leases stay.
class Target_watcher {
 public:
  /// `host`: this one, as targets name it.
  Target_watcher(Watcher_options options, std::string host, volume::Tool_session& session,
                 Log& log);

  /// Looks at every target once. Errors: the metadata servers do not answer; nothing was changed.
  Outcome<void> look();
  /// Runs the loop for a second.
  void pause();
  /// Stops what is served here and gives the leases back, so that other gateways go on at once.
  void leave();

 private:
  struct Held {
    std::shared_ptr<client::Volume> lease;
    std::string holder;  // as the MDS names us; empty: not yet asked
  };

  Time_point now() { return session_.runtime().clock().now(); }
  std::function<void()> turn();
  Outcome<void> look_at(std::string const& name);
  /// Once a step has been carried out another one may follow at once.
  bool carry_out(Failover_step step, Target const& target);
  bool take_lease(Target const& target);
  Outcome<void> move_here(Target const& target);
  Outcome<void> start(Target const& target);
  void stop_local(Target const& target, std::string const& why);
  void give_back(std::string const& name);
  void wait_until_closed(Target const& target);
  Outcome<Local_state> local_state(Target const& target);
  Outcome<void> run_tool(Target const& target, std::vector<std::string> const& more);
  Gateway gateway(Target const& target) const { return {paths_, host_, target}; }

  Watcher_options const options_;
  std::string const host_;
  volume::Tool_session& session_;
  Log& log_;
  Gateway_paths const paths_;
  Cluster_state state_;
  Failover failover_;
  std::map<std::string, Held> held_;
  std::set<std::string> waiting_;  // targets that stand by here
  std::uint64_t looks_ = 0;
};

}  // namespace pstorage::iscsi
