// How far a disk was copied in or out, so that the same command can go on after it was interrupted.
// Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/result.h"

namespace pstorage::volume {

/// An import is called NAME.importing until all is there, an export FILE.exporting.
inline constexpr char const* importing_suffix = ".importing";
inline constexpr char const* exporting_suffix = ".exporting";
/// Beside FILE.exporting: its note.
inline constexpr char const* note_suffix = ".note";
/// Property of an unfinished volume: its note.
inline constexpr char const* import_property = "volume.import";

struct Transfer_note {
  std::string source;  // path, NBD URI, or volume@GUID
  std::string format;  // of what is outside
  std::uint64_t size_bytes = 0;
  std::int64_t modified_ns = 0;  // of a file, since 1970
  std::uint64_t done_bytes = 0;  // everything before this is durable where it was copied to

  std::string text() const;
};

/// Errors: corrupt.
Outcome<Transfer_note> parse_note(std::string const& text);
/// May what `before` began go on with what is there `now`? Errors: refused, saying what differs.
Outcome<void> check_same_source(Transfer_note const& before, Transfer_note const& now);

/// Called when everything up to `done_bytes` is durable. Its failure ends the transfer.
using Note_down = std::function<Outcome<void>(std::uint64_t done_bytes)>;

}  // namespace pstorage::volume
