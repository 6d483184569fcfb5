// What a disk may hold: for every sector the values it was given since it was last known.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/bytes.h"

namespace pstorage::ploop::test {

/// Values are stamps: 0 = zeros, else the number of the write. A sector's 512 bytes tell which
/// sector of the disk and which write they belong to.
class Content_model {
 public:
  static constexpr std::uint64_t sector = 512;

  explicit Content_model(std::uint64_t sectors) : histories_(sectors) {}
  std::uint64_t sectors() const { return histories_.size(); }

  /// A request was submitted; returns its number. `is_discard`: zeros or nothing at all.
  std::uint64_t submit(std::uint64_t first, std::uint64_t count, bool is_zero, bool is_discard);
  /// It was answered, with `durable` (FUA) for good.
  void answered(std::uint64_t first, std::uint64_t count, std::uint64_t number, bool durable);
  /// Numbers answered so far: what a flush that is submitted now will cover.
  std::vector<std::uint64_t> snapshot() const;
  void flushed(std::vector<std::uint64_t> const& snapshot);

  static void fill(std::uint64_t first, std::uint64_t number, Mutable_bytes to);

  /// Numbers of the newest submitted change of each sector: what a read submitted now must see.
  std::vector<std::uint64_t> newest(std::uint64_t first, std::uint64_t count) const;
  /// Empty, or what is wrong with `bytes`, read after the changes numbered `newest` and before any
  /// later one.
  std::string check_read(std::uint64_t first, std::vector<std::uint64_t> const& newest,
                         Bytes bytes) const;
  /// Empty, or what is wrong with the whole disk after a power loss (`power`) or a kill. Then the
  /// model holds what was found.
  std::string check_after(bool power, Bytes disk);

 private:
  struct Change {
    std::uint64_t number;
    bool is_zero;
    bool is_discard;
  };
  struct History {
    std::vector<Change> changes = {{0, true, false}};  // [0]: what is known to be durable
    std::uint64_t answered = 0;
    std::uint64_t durable = 0;
  };

  static bool may_be(History const& history, std::size_t position, std::uint64_t stamp);
  /// The stamp in the 512 bytes at `at`, 0 for zeros, `garbage` for what nobody wrote there.
  static constexpr std::uint64_t garbage = ~std::uint64_t{0};
  static std::uint64_t stamp_of(std::uint64_t index, std::byte const* at);
  void trim(History& history);

  std::vector<History> histories_;
  std::uint64_t next_ = 1;
};

}  // namespace pstorage::ploop::test
