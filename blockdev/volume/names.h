// Names of volumes: "vm1", "group/vm1", and their snapshots: "vm1@monday". Pure.
#pragma once

#include <cstdint>
#include <string>

#include "core/result.h"

namespace pstorage::volume {

/// The directory of all volumes. A volume is a file there (raw), or a directory with a disk in it.
inline constexpr char const* volumes_root = "/volumes";
/// Where deleted volumes wait. Names of volumes in it: what they were called, and when it was.
inline constexpr char const* trash_root = "/trash";
inline constexpr char const* descriptor_file = "DiskDescriptor.xml";
inline constexpr char const* base_file = "root.hds";
/// Directories being filled begin with this; they are no volumes yet.
inline constexpr char const* unfinished_prefix = ".new-";

/// Properties of a volume's directory or file.
inline constexpr char const* format_property =
    "volume.format";                                         // "ploop": so listings need not look
inline constexpr char const* size_property = "volume.size";  // bytes, of a ploop volume

/// "ID UNTIL", UNTIL in milliseconds of the wall clock: until then the volume may be served on a
/// second host, which takes it over with its first request: the live migration ID.
inline constexpr char const* migration_property = "volume.migration";
/// The ID in a property's text; empty: no migration is allowed at `wall_ms`.
std::string migration_in(std::string const& property, std::uint64_t wall_ms);
std::string migration_text(std::string const& id, std::uint64_t until_ms);

/// "GUID DONE ALL" or "GUID ! WHY": the snapshot that is to go while the volume is in use, how many
/// of its clusters need no copy any more, or why it cannot go.
inline constexpr char const* merge_property = "volume.merge";
struct Merge_note {
  std::string guid;
  std::uint64_t done = 0;
  std::uint64_t all = 0;  // 0: not begun
  std::string why;

  std::string text() const;
};
/// Of the property's text; without GUID: it says nothing.
Merge_note merge_note(std::string const& text);

struct Volume_name {
  std::string name;
  std::string snapshot;  // empty: the volume itself

  /// "/volumes/NAME".
  std::string path() const { return std::string(volumes_root) + "/" + name; }
};

/// Errors: bad_request, saying what is possible.
Outcome<Volume_name> parse_volume_name(std::string const& text);
/// The same where a snapshot makes no sense. Errors: as above.
Outcome<Volume_name> parse_plain_name(std::string const& text);
/// "/volumes/a/vm1" -> "/volumes/a", "vm1".
std::pair<std::string, std::string> split_last(std::string const& path);

}  // namespace pstorage::volume
