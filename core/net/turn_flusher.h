// Something that collects output during a loop turn and writes it at the end.
#pragma once

namespace pstorage {

class Turn_flusher {
 public:
  virtual ~Turn_flusher() = default;
  /// After all events of the turn and the turn hook: write what was collected.
  virtual void flush_turn() = 0;
};

}  // namespace pstorage
