#include "mds/planner/slow_watch.h"

#include <algorithm>
#include <utility>

namespace pstorage::mds {
namespace {

constexpr Duration judge_interval = std::chrono::seconds(1);

std::string ms_text(Duration duration) {
  return std::to_string(duration / std::chrono::milliseconds(1)) + " ms";
}

}  // namespace

void Slow_watch::reported(Cs_id cs, Time_point) { servers_[cs].is_reported = true; }

void Slow_watch::heard(Cs_id cs, Duration latency, Duration stalled, Time_point) {
  auto& server = servers_[cs];
  server.latency = latency;
  server.stalled = stalled;
}

void Slow_watch::restarted(Cs_id cs) {
  auto const found = servers_.find(cs);
  if (found == servers_.end()) return;
  auto& server = found->second;
  server.latency = server.stalled = server.lagged = Duration{0};
}

Duration Slow_watch::median_of_others(Cs_id cs) const {
  std::vector<Duration> known;
  for (auto const& [id, server] : servers_) {
    if (id != cs && server.latency != Duration{0}) known.push_back(server.latency);
  }
  if (known.empty()) return Duration{0};
  auto const middle = known.begin() + static_cast<std::ptrdiff_t>(known.size() / 2);
  std::nth_element(known.begin(), middle, known.end());
  return *middle;
}

/// Why it is to be called slow now; empty: there is no reason. Notes for how long its disk lags.
std::string Slow_watch::bad_sign(Cs_id cs, Server& server, Duration passed) const {
  if (std::exchange(server.is_reported, false)) {
    return "a client waits for it far longer than for its peers";
  }
  auto const stalled_max = server.is_slow ? rules_.stalled_max / 4 : rules_.stalled_max;
  if (server.stalled >= stalled_max) {
    return "its disk has not finished a request for " + ms_text(server.stalled);
  }
  auto const others = median_of_others(cs);
  auto bound = std::max(rules_.disk_min, others * rules_.disk_factor);
  if (server.is_slow) bound /= 2;
  if (others == Duration{0} || server.latency <= bound) {
    server.lagged = Duration{0};
    return {};
  }
  server.lagged += passed;
  if (server.lagged < rules_.disk_patience && !server.is_slow) return {};
  return "its disk takes " + ms_text(server.latency) + ", those of the others " + ms_text(others);
}

std::vector<Slow_watch::Change> Slow_watch::judge(Time_point now) {
  auto const passed = now - judged_;
  if (passed < judge_interval) return {};
  judged_ = now;
  std::vector<Change> changes;
  for (auto& [cs, server] : servers_) {
    auto const sign = bad_sign(cs, server, std::min(passed, 2 * judge_interval));
    if (!sign.empty()) {
      server.bad = now;
      if (server.is_slow) continue;
      bool const again = server.stay != Duration{0} && now - server.since < 6 * server.stay;
      server.stay = again ? std::min(2 * server.stay, rules_.stay_max) : rules_.stay_min;
      server.is_slow = true;
      server.since = now;
      changes.push_back({cs, true, sign});
    } else if (server.is_slow && now - server.bad >= server.stay) {
      server.is_slow = false;
      server.since = now;
      changes.push_back({cs, false, {}});
    }
  }
  return changes;
}

bool Slow_watch::is_slow(Cs_id cs) const {
  auto const found = servers_.find(cs);
  return found != servers_.end() && (found->second.is_slow || found->second.is_reported);
}

Duration Slow_watch::slow_for(Cs_id cs, Time_point now) const {
  auto const found = servers_.find(cs);
  bool const is_flagged = found != servers_.end() && found->second.is_slow;
  return is_flagged ? now - found->second.since : Duration{0};
}

}  // namespace pstorage::mds
