#include "iscsi/volume_reservation_store.h"

#include <algorithm>
#include <boost/crc.hpp>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "core/bytes.h"

namespace pstorage::iscsi {
namespace {

constexpr std::string_view magic = "PSTRSV01";
constexpr std::size_t head_bytes = 16;
constexpr std::size_t step_bytes = 4096;
constexpr std::uint64_t fence_bytes = 512;

std::byte* raw(std::uint8_t* at) { return reinterpret_cast<std::byte*>(at); }
std::byte const* raw(std::uint8_t const* at) { return reinterpret_cast<std::byte const*>(at); }

std::uint32_t crc_of(std::string_view text) {
  boost::crc_32_type crc;
  crc.process_bytes(text.data(), text.size());
  return crc.checksum();
}

}  // namespace

Outcome<std::vector<std::uint8_t>> encode_slot(Versioned_reservations const& reservations) {
  auto const text = encode(reservations);
  if (head_bytes + text.size() > reservation_slot_bytes) {
    return failure(Errc::too_large, "the reservations take more than " +
                                        std::to_string(reservation_slot_bytes) + " bytes");
  }
  std::vector<std::uint8_t> slot((head_bytes + text.size() + step_bytes - 1) / step_bytes *
                                 step_bytes);
  std::copy(magic.begin(), magic.end(), slot.begin());
  store_le(raw(slot.data()) + 8, static_cast<std::uint32_t>(text.size()));
  store_le(raw(slot.data()) + 12, crc_of(text));
  std::copy(text.begin(), text.end(), slot.begin() + head_bytes);
  return slot;
}

std::optional<Versioned_reservations> decode_slot(std::span<std::uint8_t const> slot) {
  if (slot.size() < head_bytes || !std::equal(magic.begin(), magic.end(), slot.begin())) {
    return std::nullopt;
  }
  auto const size = load_le<std::uint32_t>(raw(slot.data()) + 8);
  if (size > slot.size() - head_bytes) return std::nullopt;
  std::string const text(slot.begin() + head_bytes,
                         slot.begin() + static_cast<std::ptrdiff_t>(head_bytes + size));
  if (crc_of(text) != load_le<std::uint32_t>(raw(slot.data()) + 12)) return std::nullopt;
  auto decoded = iscsi::decode(text);
  if (!decoded.has_value()) return std::nullopt;
  return std::move(decoded).value();
}

Volume_reservation_store::Volume_reservation_store(Store& disk, Store& slots)
    : disk_(disk), slots_(slots) {}

void Volume_reservation_store::submit(Step step, Store& store) {
  step_ = step;
  operation = step == Step::write ? Store_operation::write : Store_operation::read;
  fua = step == Step::write;
  data = buffer_.data();
  length = buffer_.size();
  age_ticks = 0;
  store.submit(*this);
}

void Volume_reservation_store::load(std::function<void(Outcome<Versioned_reservations>)> done) {
  load_done_ = std::move(done);
  is_loaded_ = false;
  buffer_.resize(fence_bytes);
  offset = 0;
  submit(Step::fence, disk_);
}

void Volume_reservation_store::store_done(int error) {
  Step const step = std::exchange(step_, Step::idle);
  if (step == Step::write) {
    if (error == 0) ++version_;
    auto const done = std::exchange(replace_done_, nullptr);
    return done(error == 0 ? Outcome<void>(success())
                           : failure(Errc::unavailable,
                                     std::string("cannot store them: ") + std::strerror(error)));
  }
  if (error != 0) {
    auto const done = std::exchange(load_done_, nullptr);
    return done(failure(error == EAGAIN ? Errc::unavailable : Errc::io_error,
                        std::string("cannot read the reservations: ") + std::strerror(error)));
  }
  if (step == Step::read) return loaded();
  buffer_.resize(reservation_volume_bytes);
  offset = 0;
  submit(Step::read, slots_);
}

void Volume_reservation_store::loaded() {
  std::span<std::uint8_t const> const all(buffer_);
  Versioned_reservations newest;
  for (std::uint64_t slot = 0; slot < 2; ++slot) {
    auto found = decode_slot(all.subspan(slot * reservation_slot_bytes, reservation_slot_bytes));
    if (found && found->version > newest.version) newest = std::move(*found);
  }
  buffer_ = {};  // a change needs a fraction of it
  version_ = newest.version;
  is_loaded_ = true;
  std::exchange(load_done_, nullptr)(std::move(newest));
}

void Volume_reservation_store::replace(std::uint64_t expected, Reservation_state const& next,
                                       std::function<void(Outcome<void>)> done) {
  if (!is_loaded_ || step_ != Step::idle) {
    return done(failure(Errc::unavailable, "the reservations are not loaded yet"));
  }
  if (expected != version_) return done(failure(Errc::stale_version, "they have changed"));
  auto slot = encode_slot({expected + 1, next});
  if (!slot.has_value()) return done(slot.error());
  replace_done_ = std::move(done);
  buffer_ = std::move(slot).value();
  offset = (expected + 1) % 2 * reservation_slot_bytes;
  submit(Step::write, slots_);
}

}  // namespace pstorage::iscsi
