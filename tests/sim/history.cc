#include "tests/sim/history.h"

#include <algorithm>
#include <set>

namespace pstorage::sim {
namespace {

/// All operations on one value within one segment: [low, high] = [first finish, last start].
struct Zone {
  std::uint64_t value = 0;
  Moment low = never;
  Moment high = INT64_MIN;
  bool is_forward() const { return low < high; }
};

std::string say(char const* what, std::uint64_t a, std::uint64_t b) {
  return std::string(what) + ": values " + std::to_string(a) + " and " + std::to_string(b);
}

/// Zones of unique values: forward ones must not overlap, a backward one must not lie inside a
/// forward one. O(n log n).
std::string check_zones(std::vector<Zone> const& zones) {
  std::vector<Zone> forward, backward;
  for (Zone const& zone : zones) (zone.is_forward() ? forward : backward).push_back(zone);
  std::sort(forward.begin(), forward.end(),
            [](Zone const& a, Zone const& b) { return a.low < b.low; });
  for (std::size_t i = 1; i < forward.size(); ++i)
    if (forward[i].low < forward[i - 1].high)
      return say("not linearizable, both seen in turns", forward[i - 1].value, forward[i].value);
  for (Zone const& zone : backward) {
    // The operations of a backward zone all span [high, low].
    auto place = std::upper_bound(forward.begin(), forward.end(), zone.high,
                                  [](Moment m, Zone const& f) { return m < f.low; });
    if (place == forward.begin()) continue;
    --place;
    if (place->low < zone.high && zone.low < place->high)
      return say("not linearizable, a read ignores a write in between", place->value, zone.value);
  }
  return {};
}

class Checker {
 public:
  Checker(Block_history const& history, std::vector<Moment> const& power_losses)
      : history_(history), power_losses_(power_losses) {
    for (Block_write const& write : history.writes)
      if (!write.is_zero) by_value_[write.value] = &write;
  }

  std::string run() const {
    if (auto fault = check_values(); !fault.empty()) return fault;
    if (auto fault = check_durability(); !fault.empty()) return fault;
    if (auto fault = check_epochs(); !fault.empty()) return fault;
    Moment from = INT64_MIN;
    for (std::size_t i = 0; i <= power_losses_.size(); ++i) {
      Moment const to = i < power_losses_.size() ? power_losses_[i] : never;
      if (auto fault = check_segment(from, to); !fault.empty()) return fault;
      from = to;
    }
    return {};
  }

 private:
  std::string check_values() const {
    for (Block_read const& read : history_.reads) {
      if (read.value == 0) continue;
      auto const write = by_value_.find(read.value);
      if (write == by_value_.end()) return say("read of a value never written", read.value, 0);
      if (write->second->start > read.finish)
        return say("read before its write began", read.value, 0);
    }
    return {};
  }

  /// Is `older` certainly before `newer` in every order?
  static bool precedes(Block_write const& older, Block_write const& newer) {
    return older.finish < newer.start;
  }

  std::string check_durability() const {
    for (Block_write const& durable : history_.writes) {
      if (durable.durable == never) continue;
      for (Block_read const& read : history_.reads) {
        if (read.start < durable.durable) continue;
        if (read.value != 0) {
          if (precedes(*by_value_.at(read.value), durable))
            return say("a flushed write is lost; read and expected", read.value, durable.value);
        } else if (!durable.is_zero && !zero_after(durable, read)) {
          return say("a flushed write is lost; zeros instead of", 0, durable.value);
        }
      }
    }
    return {};
  }

  bool zero_after(Block_write const& durable, Block_read const& read) const {
    return std::any_of(history_.writes.begin(), history_.writes.end(), [&](Block_write const& w) {
      return w.is_zero && w.start < read.finish && !precedes(w, durable);
    });
  }

  std::string check_epochs() const {
    auto reads = history_.reads;
    std::sort(reads.begin(), reads.end(),
              [](Block_read const& a, Block_read const& b) { return a.finish < b.finish; });
    for (std::size_t i = 0; i < reads.size(); ++i) {
      if (reads[i].value == 0) continue;
      Block_write const& first = *by_value_.at(reads[i].value);
      for (std::size_t k = i + 1; k < reads.size(); ++k) {
        if (reads[k].value == 0 || reads[k].start < reads[i].finish ||
            lost_between(reads[i], reads[k]))
          continue;
        Block_write const& second = *by_value_.at(reads[k].value);
        if (second.epoch < first.epoch)
          return say("a write of an older epoch took effect after one of a newer epoch",
                     first.value, second.value);
      }
    }
    return {};
  }

  bool lost_between(Block_read const& a, Block_read const& b) const {
    return std::any_of(power_losses_.begin(), power_losses_.end(),
                       [&](Moment m) { return m >= a.start && m <= b.finish; });
  }

  std::string check_segment(Moment from, Moment to) const {
    std::map<std::uint64_t, Zone> zones;
    std::vector<Zone> all;
    auto const in_segment = [&](Block_read const& read) {
      return read.start >= from && read.finish < to;
    };
    std::set<std::uint64_t> seen;
    for (Block_read const& read : history_.reads)
      if (in_segment(read)) seen.insert(read.value);
    for (Block_write const& write : history_.writes) {
      if (write.start >= to) continue;
      Zone zone{.value = write.value, .low = write.finish, .high = write.start};
      bool const old = write.start < from;
      if (old && write.finish < from) {
        // What was there when the segment began; unread ones leave no trace.
        if (write.is_zero || !seen.contains(write.value)) continue;
        zone.low = zone.high = from;
      } else if (write.is_zero) {
        // Its reads cannot be told from those of other zeroes: only the write counts.
        if (write.finish < to) all.push_back(zone);
        continue;
      } else if (!seen.contains(write.value) && (write.finish >= to || old)) {
        // Unanswered and unseen: it may not have happened. Nor need one have left a trace whose
        // answer was on its way when the power failed.
        continue;
      }
      zones[write.value] = zone;
    }
    for (Block_read const& read : history_.reads) {
      if (!in_segment(read) || read.value == 0) continue;
      auto const known = zones.find(read.value);
      if (known == zones.end()) continue;
      known->second.low = std::min(known->second.low, read.finish);
      known->second.high = std::max(known->second.high, read.start);
    }
    for (auto const& [_, zone] : zones) all.push_back(zone);
    if (from == INT64_MIN && seen.contains(0) && !has_zeroes()) all.push_back(beginning(to));
    if (auto fault = check_zones(all); !fault.empty()) return fault;
    return check_zero_reads(from, to);
  }

  bool has_zeroes() const {
    return std::any_of(history_.writes.begin(), history_.writes.end(),
                       [](Block_write const& write) { return write.is_zero; });
  }

  /// Without zeroes, zeros are a value like any other, written before everything.
  Zone beginning(Moment to) const {
    Zone zone{.value = 0, .low = INT64_MIN, .high = INT64_MIN};
    for (Block_read const& read : history_.reads)
      if (read.value == 0 && read.finish < to) zone.high = std::max(zone.high, read.start);
    return zone;
  }

  /// A read of zeros needs a zero (or the beginning) that is not certainly overwritten before it.
  std::string check_zero_reads(Moment from, Moment to) const {
    for (Block_read const& read : history_.reads) {
      if (read.value != 0 || read.start < from || read.finish >= to) continue;
      if (zero_is_possible(read, from)) continue;
      return say("zeros although a write is certainly later than every zero", 0, 0);
    }
    return {};
  }

  bool zero_is_possible(Block_read const& read, Moment from) const {
    auto const overwritten = [&](Moment zero_finish) {
      return std::any_of(history_.writes.begin(), history_.writes.end(), [&](Block_write const& w) {
        return !w.is_zero && w.start > zero_finish && w.finish < read.start && w.start >= from;
      });
    };
    if (!overwritten(INT64_MIN)) return true;
    return std::any_of(history_.writes.begin(), history_.writes.end(), [&](Block_write const& w) {
      return w.is_zero && w.start < read.finish && !overwritten(w.finish);
    });
  }

  Block_history const& history_;
  std::vector<Moment> const& power_losses_;
  std::map<std::uint64_t, Block_write const*> by_value_;
};

}  // namespace

std::string check_block(Block_history const& history, std::vector<Moment> const& power_losses) {
  return Checker(history, power_losses).run();
}

}  // namespace pstorage::sim
