// Which chunk servers are slow, from what clients report and what heartbeats say of their disks.
// Pure. Kept by the leader alone: another one learns it again from the next reports and heartbeats.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/env/clock.h"
#include "core/ids.h"

namespace pstorage::mds {

struct Slow_rules {
  Duration disk_min = std::chrono::milliseconds(200);  // a quicker disk never is slow
  int disk_factor = 10;                                // times the median of the others
  Duration disk_patience = std::chrono::seconds(5);    // so long
  Duration stalled_max = std::chrono::seconds(4);      // a request that the disk does not finish
  // The flag stays so long after the last bad sign, twice as long when it soon comes again.
  Duration stay_min = std::chrono::seconds(20);
  Duration stay_max = std::chrono::minutes(10);
};

/// Thread: the owner's loop.
class Slow_watch {
 public:
  struct Change {
    Cs_id cs;
    bool is_slow = false;
    std::string reason;  // of a new flag
  };

  Slow_watch() = default;

  /// A writer has dropped replicas on `cs` because it answers far slower than its peers.
  void reported(Cs_id cs, Time_point now);
  /// From its heartbeat. `latency`: of its disk of late, zero: not known. `stalled`: age of the
  /// oldest request that the disk has not finished.
  void heard(Cs_id cs, Duration latency, Duration stalled, Time_point now);
  /// It has gone or was started anew: its figures say nothing any more. A flag stays its time.
  void restarted(Cs_id cs);
  /// Compares them; what has changed, by id. At most every second.
  std::vector<Change> judge(Time_point now);

  bool is_slow(Cs_id cs) const;
  /// For how long; zero: it is not.
  Duration slow_for(Cs_id cs, Time_point now) const;

 private:
  struct Server {
    Duration latency{0};
    Duration stalled{0};
    Duration lagged{0};
    bool is_slow = false;
    bool is_reported = false;  // since the last judgement
    Time_point bad{};          // last sign
    Time_point since{};        // set or cleared
    Duration stay{0};
  };
  Duration median_of_others(Cs_id cs) const;
  std::string bad_sign(Cs_id cs, Server& server, Duration passed) const;

  Slow_rules rules_;
  std::map<Cs_id, Server> servers_;
  Time_point judged_{};
};

}  // namespace pstorage::mds
