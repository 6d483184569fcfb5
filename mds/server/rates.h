// What a peer does a second, from the totals that it reports.
#pragma once

#include <array>
#include <cstdint>

#include "core/env/clock.h"

namespace pstorage::mds {

/// Pure. Thread: the owner's loop. `Count` totals that only grow; one that shrinks was counted
/// anew by another process.
template <std::size_t Count>
class Rates {
 public:
  using Totals = std::array<std::uint64_t, Count>;

  /// `totals` as of `now`. Reports that come sooner than interval_min after the last one only count
  /// with the next one: of two that arrive together nothing can be told.
  void heard(Totals const& totals, Time_point now) {
    if (!is_known_ || now - at_ >= interval_min) {
      for (std::size_t i = 0; i < Count; ++i) {
        auto const more = is_known_ && totals[i] > totals_[i] ? totals[i] - totals_[i] : 0;
        auto const us = is_known_ ? (now - at_) / std::chrono::microseconds(1) : 1;
        a_second_[i] =
            static_cast<std::uint64_t>(static_cast<double>(more) * 1e6 / static_cast<double>(us));
      }
      totals_ = totals;
      at_ = now;
      is_known_ = true;
    }
  }
  /// All 0 when nothing was heard for silence_max.
  Totals a_second(Time_point now) const {
    return is_known_ && now - at_ <= silence_max ? a_second_ : Totals{};
  }

 private:
  static constexpr Duration interval_min = std::chrono::milliseconds(900);
  static constexpr Duration silence_max = std::chrono::seconds(5);
  bool is_known_ = false;
  Time_point at_;
  Totals totals_{};
  Totals a_second_{};
};

}  // namespace pstorage::mds
