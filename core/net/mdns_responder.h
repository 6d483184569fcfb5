// Answers multicast DNS queries for this metadata server's cluster (core/config/mdns.h).
#pragma once

#include "core/config/mdns.h"
#include "core/env/clock.h"
#include "core/log.h"
#include "core/net/event_loop.h"

namespace pstorage {

/// Hears only what was sent to the group, so nobody beyond the local network. Thread: the loop's.
class Mdns_responder final : public Ticker, private Event_handler {
 public:
  Mdns_responder(Event_loop& loop, Clock& clock, Mdns_service service);
  /// Errors: the system's, with a line for a person.
  Outcome<void> start();
  /// Joins on interfaces that have come up since.
  void on_tick() override;

 private:
  void on_ready(Readiness ready) override;
  bool answer_one();
  void join_everywhere();

  Clock& clock_;
  Mdns_service const service_;
  Watch socket_;
  Time_point joined_at_{};
};

}  // namespace pstorage
