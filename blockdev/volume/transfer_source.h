// A disk outside that is read piece by piece: a raw file, or an NBD export.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "core/buffer.h"
#include "core/result.h"

namespace pstorage::volume {

/// Blocking. Errors carry a line for a person.
class Transfer_source {
 public:
  virtual ~Transfer_source() = default;
  /// The first byte at or behind `at` that may hold something; nothing: zeros up to the end.
  virtual Outcome<std::optional<std::uint64_t>> next_data(std::uint64_t at) = 0;
  virtual Outcome<void> read(std::uint64_t at, Slice& piece) = 0;
};

Outcome<std::unique_ptr<Transfer_source>> open_raw_file(std::string const& path);
/// `size_bytes`: of the export.
Outcome<std::unique_ptr<Transfer_source>> open_nbd(std::string const& uri,
                                                   std::uint64_t size_bytes);

}  // namespace pstorage::volume
