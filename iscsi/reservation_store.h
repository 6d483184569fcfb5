// Where the reservations of a volume are kept, so that they outlive this process.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/result.h"
#include "iscsi/reservations.h"

namespace pstorage::iscsi {

/// A state and the version under which it was stored; a volume without one has version 0.
struct Versioned_reservations {
  std::uint64_t version = 0;
  Reservation_state state;
};

/// One volume's reservations. Thread: tgtd's loop; callbacks there, possibly inside the call.
class Reservation_store {
 public:
  virtual ~Reservation_store() = default;

  /// The durable state. Errors: corrupt, unavailable (may be asked again), the store's own.
  virtual void load(std::function<void(Outcome<Versioned_reservations>)> done) = 0;

  /// Replaces version `expected` by `next` with version `expected` + 1; success only once that is
  /// durable. Errors: stale_version when somebody else was first (then load() and decide again),
  /// unavailable (nothing is known; the command is answered BUSY and the initiator asks again).
  virtual void replace(std::uint64_t expected, Reservation_state const& next,
                       std::function<void(Outcome<void>)> done) = 0;
};

/// The state as JSON, one line; what a store keeps.
std::string encode(Versioned_reservations const& reservations);
/// Errors: corrupt.
Outcome<Versioned_reservations> decode(std::string const& text);

/// In the file at `path`: atomically replaced and synced. For gateways that share no cluster store;
/// the calls block for as long as the disk needs.
std::unique_ptr<Reservation_store> make_file_store(std::string path);
/// Nowhere: reservations end with the process.
std::unique_ptr<Reservation_store> make_memory_store();

}  // namespace pstorage::iscsi
