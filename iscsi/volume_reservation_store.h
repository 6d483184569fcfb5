// Persistent reservations in a small volume of the cluster, reached as the LUN's own volume is.
// Who opens that volume fences the gateway that had it before, as with every volume, so what one
// gateway has read nobody else can still change. Pure.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "iscsi/reservation_store.h"
#include "iscsi/store.h"

namespace pstorage::iscsi {

/// Two slots, written in turn: a write that is cut short leaves the other one.
inline constexpr std::uint64_t reservation_slot_bytes = 512u << 10;
inline constexpr std::uint64_t reservation_volume_bytes = 2 * reservation_slot_bytes;

/// Layout of a slot: "PSTRSV01", u32 bytes of the text, u32 CRC-32 of the text, little endian; then
/// the text, encode()'s. Thread: tgtd's loop.
class Volume_reservation_store final : public Reservation_store, private Store_request {
 public:
  /// `disk`: the LUN's volume. It is asked first, so that its former gateway is fenced before the
  /// reservations are read. Both must outlive this, or be destroyed without answering any more.
  Volume_reservation_store(Store& disk, Store& slots);

  void load(std::function<void(Outcome<Versioned_reservations>)> done) override;
  void replace(std::uint64_t expected, Reservation_state const& next,
               std::function<void(Outcome<void>)> done) override;

 private:
  enum class Step { idle, fence, read, write };

  void store_done(int error) override;
  void submit(Step step, Store& store);
  void loaded();

  Store& disk_;
  Store& slots_;
  Step step_ = Step::idle;
  std::vector<std::uint8_t> buffer_;
  std::uint64_t version_ = 0;  // the durable one
  bool is_loaded_ = false;
  std::function<void(Outcome<Versioned_reservations>)> load_done_;
  std::function<void(Outcome<void>)> replace_done_;
};

/// A slot's bytes, in whole blocks of 4096. Errors: too_large.
Outcome<std::vector<std::uint8_t>> encode_slot(Versioned_reservations const& reservations);
/// Nothing: never written, or cut short.
std::optional<Versioned_reservations> decode_slot(std::span<std::uint8_t const> slot);

}  // namespace pstorage::iscsi
