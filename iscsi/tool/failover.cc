#include "iscsi/tool/failover.h"

#include <algorithm>

namespace pstorage::iscsi {

Failover_step Failover::decide(std::string const& name, Target_view const& view, Time_point now) {
  Known& known = targets_[name];
  bool const is_waiting =
      view.local == Local_state::standby || view.local == Local_state::outdated_standby;
  if (!view.should_run) {
    return view.is_ours ? Failover_step::give_back
           : is_waiting ? Failover_step::stop_local
                        : Failover_step::none;
  }
  if (view.is_ours) {
    known.free_since = {};
    if (view.owner != host_) {
      return now < known.not_before ? Failover_step::none : Failover_step::take_over;
    }
    if (view.local == Local_state::serving || now < known.not_before) return Failover_step::none;
    return Failover_step::start;
  }
  if (!view.holder.empty()) {
    known.was_held = true;
    known.free_since = {};
    if (view.local == Local_state::serving) return Failover_step::stop_local;
    return when_not_ours(known, view, now);
  }
  if (known.free_since == Time_point{}) known.free_since = now;
  if (view.owner == host_) return Failover_step::take_lease;
  bool const may_take = !view.owner.empty() && view.may_move && view.may_serve;
  bool const is_abandoned = known.was_held || now - known.free_since >= never_held_pause;
  if (may_take && is_abandoned) return Failover_step::take_lease;
  return when_not_ours(known, view, now);
}

Failover_step Failover::when_not_ours(Known const& known, Target_view const& view,
                                      Time_point now) const {
  bool const is_current = view.local == Local_state::standby || view.local == Local_state::serving;
  if (view.stands_by) {
    return is_current || now < known.not_before ? Failover_step::none : Failover_step::stand_by;
  }
  bool const is_waiting =
      view.local == Local_state::standby || view.local == Local_state::outdated_standby;
  return is_waiting ? Failover_step::stop_local : Failover_step::none;
}

void Failover::failed(std::string const& name, Time_point now) {
  Known& known = targets_[name];
  known.pause = std::clamp(known.pause * 2, retry_min, retry_max);
  known.not_before = now + known.pause;
}

void Failover::succeeded(std::string const& name) {
  targets_[name].pause = {};
  targets_[name].not_before = {};
}

}  // namespace pstorage::iscsi
