// What the clients of a simulated (or real) cluster did and saw, and whether that was allowed.
// Source: Gibbons and Korach, "Testing shared memories": zones of unique values.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace pstorage::sim {

using Moment = std::int64_t;  // nanoseconds of virtual time
inline constexpr Moment never = INT64_MAX;

/// One write of a unique value to one block, or a zero of it.
struct Block_write {
  std::uint64_t value = 0;  // unique in the run; 0 only for zeroes
  bool is_zero = false;
  std::uint32_t epoch = 0;  // of the writer
  Moment start = 0;
  Moment finish = never;   // answered ok
  Moment durable = never;  // a flush that covers it was answered; never: none
};

struct Block_read {
  std::uint64_t value = 0;  // 0: zeros
  Moment start = 0;
  Moment finish = 0;
};

struct Block_history {
  std::vector<Block_write> writes;
  std::vector<Block_read> reads;
};

/// Checks one block. `power_losses`: moments at which unflushed writes may have been lost on every
/// replica, rising. Empty result: allowed. Rules: reads return submitted values; linearizable
/// between power losses; a value older than a durable one never returns; epochs never go back.
std::string check_block(Block_history const& history, std::vector<Moment> const& power_losses);

}  // namespace pstorage::sim
