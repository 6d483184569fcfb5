// Which lease a mount needs of one file, and when it gives it back. Pure: told what happens, it
// answers what to do next.
#pragma once

#include <cstdint>

#include "core/env/clock.h"

namespace pstorage::mount {

/// In order of strength.
enum class Hold : unsigned char { none, shared, exclusive };

enum class Step : unsigned char {
  wait,            // nothing to do
  take_shared,     // ask the MDS; then taken() or refused()
  take_exclusive,  // as well; what is held already stays until it is granted
  give_back,       // flush, tell the size, close; then given_back()
};

/// One file. Users are open handles (readers, writers); operations are requests on their way.
class File_lease {
 public:
  /// A lease without users, an exclusive one without writers, is kept this long for the next one.
  static constexpr Duration idle_exclusive = std::chrono::milliseconds(100);
  static constexpr Duration idle_shared = std::chrono::milliseconds(1000);

  void add_user(bool writes) { ++(writes ? writers_ : readers_); }
  void remove_user(bool writes, Time_point now);
  bool has_users() const { return readers_ + writers_ != 0; }
  bool has_writers() const { return writers_ != 0; }

  Hold hold() const { return hold_; }
  /// Is a take or a give_back under way?
  bool is_moving() const { return moving_; }
  /// May an operation start now? A writing one needs the exclusive lease. No new ones are let in
  /// while the lease has to change, or it never would.
  bool may_start(bool writes, Time_point now) const;
  void start_operation() { ++operations_; }
  void end_operation() { --operations_; }
  std::uint32_t operations() const { return operations_; }

  /// Somebody else waits for it.
  void wanted(bool exclusive) { wanted_ = exclusive ? Hold::exclusive : Hold::shared; }
  /// The last name is gone: give it back as soon as nobody uses it.
  void removed() { removed_ = true; }
  /// The process ends: as if somebody wanted every lease.
  void stop() { stopping_ = true; }

  /// What to do now. take and give_back are answered before anything else is said to be done.
  Step next(Time_point now) const;
  void begin(Step step);
  void taken(Hold hold);
  void refused() { moving_ = false; }
  void given_back();
  /// Taken away by force or by silence: what is open now must not be used any more.
  void lost();
  /// How often it was lost: a handle of an earlier generation is dead.
  std::uint32_t generation() const { return generation_; }

 private:
  Hold needed() const;

  std::uint32_t readers_ = 0;
  std::uint32_t writers_ = 0;
  std::uint32_t operations_ = 0;
  std::uint32_t generation_ = 0;
  Hold hold_ = Hold::none;
  Hold wanted_ = Hold::none;
  bool moving_ = false;
  bool removed_ = false;
  bool stopping_ = false;
  Time_point idle_since_{};
  Time_point written_until_{};  // when the last writer went
};

}  // namespace pstorage::mount
