#include "iscsi/tool/failover.h"

#include <algorithm>

namespace pstorage::iscsi {

Failover_step Failover::decide(std::string const& name, Target_view const& view, Time_point now) {
  Known& known = targets_[name];
  if (!view.should_run) return view.is_ours ? Failover_step::give_back : Failover_step::none;
  if (view.is_ours) {
    known.free_since = {};
    if (view.owner != host_) {
      return now < known.not_before ? Failover_step::none : Failover_step::take_over;
    }
    if (view.runs_here || now < known.not_before) return Failover_step::none;
    return Failover_step::start;
  }
  bool const is_here = view.owner == host_;
  if (!view.holder.empty()) {
    known.was_held = true;
    known.free_since = {};
    return view.runs_here ? Failover_step::stop_local : Failover_step::none;
  }
  if (known.free_since == Time_point{}) known.free_since = now;
  if (is_here) return Failover_step::take_lease;
  if (view.owner.empty() || !view.may_move) return Failover_step::none;
  bool const is_abandoned = known.was_held || now - known.free_since >= never_held_pause;
  return is_abandoned ? Failover_step::take_lease : Failover_step::none;
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
