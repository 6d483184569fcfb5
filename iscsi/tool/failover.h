// Which gateway serves a target, decided once a second by each gateway's pstorage-iscsid. Pure.
//
// The lease of /iscsi/NAME/owner says who serves: the MDS gives it to one process only, and gives
// it to somebody else once it has not heard of the holder for 10 s.
#pragma once

#include <map>
#include <string>

#include "core/env/clock.h"

namespace pstorage::iscsi {

/// What runs of a target on this host.
enum class Local_state {
  stopped,
  serving,
  standby,           // it answers, and another gateway serves
  outdated_standby,  // with what the target was before
};

/// A target as one gateway sees it now.
struct Target_view {
  bool should_run = false;
  bool may_move = false;   // to another host, by itself
  std::string owner;       // host that it is registered on; empty: none
  std::string holder;      // of the lease, for people; empty: nobody
  bool is_ours = false;    // we hold the lease
  bool may_serve = true;   // this host has a portal of it
  bool stands_by = false;  // this host is to stand by when another one serves
  Local_state local = Local_state::stopped;
};

enum class Failover_step {
  none,
  take_lease,  // then decide again
  take_over,   // the lease is ours, the target is registered elsewhere: move it here and start it
  start,       // it is ours and does not run
  stop_local,  // it runs here, and somebody else may be serving it
  stand_by,    // somebody else serves it: run here, but do not serve
  give_back,   // it is not to run: others may have the lease
};

class Failover {
 public:
  /// Nobody has held the lease for so long: then it may be taken although no holder was ever seen,
  /// as after all gateways have been down.
  static constexpr Duration never_held_pause = std::chrono::seconds(30);
  static constexpr Duration retry_min = std::chrono::seconds(1);
  static constexpr Duration retry_max = std::chrono::seconds(30);

  /// `host`: this one.
  explicit Failover(std::string host) : host_(std::move(host)) {}

  Failover_step decide(std::string const& name, Target_view const& view, Time_point now);
  /// The last take_over, start or stand_by of `name` failed: tried again after a pause that grows.
  void failed(std::string const& name, Time_point now);
  void succeeded(std::string const& name);
  void forget(std::string const& name) { targets_.erase(name); }

 private:
  struct Known {
    bool was_held = false;    // by somebody
    Time_point free_since{};  // zero: it is held
    Time_point not_before{};
    Duration pause{};
  };
  Failover_step when_not_ours(Known const& known, Target_view const& view, Time_point now) const;

  std::string const host_;
  std::map<std::string, Known> targets_;
};

}  // namespace pstorage::iscsi
