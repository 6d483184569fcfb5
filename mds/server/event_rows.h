// Events as the state machine's table has them, for answers.
#pragma once

#include "mds.pb.h"
#include "mds/state/database.h"

namespace pstorage::mds {

/// Adds an event for each row of a query of number, time_ms, source, severity, text.
inline void add_events(Rows& rows, proto::Events& events) {
  while (rows.next()) {
    auto& event = *events.add_events();
    event.set_number(rows.u64(0));
    event.set_time_ms(rows.u64(1));
    event.set_source(rows.text(2));
    event.set_severity(rows.text(3));
    event.set_text(rows.text(4));
  }
}

}  // namespace pstorage::mds
