// The bytes of a ploop image: header and BAT entries, versions 1 and 2. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "core/bytes.h"
#include "core/result.h"

namespace pstorage::ploop {

inline constexpr std::uint32_t sector_bytes = 512;
inline constexpr std::uint32_t header_bytes = 64;
/// BAT writes have this size and alignment (facts/ploop.md 5.2, rule 6).
inline constexpr std::uint32_t page_bytes = 4096;
inline constexpr std::uint32_t cluster_bytes_min = 32u << 10;
inline constexpr std::uint32_t cluster_bytes_max = 64u << 20;
inline constexpr std::uint32_t cluster_bytes_default = 1u << 20;
/// Above this nobody else opens the disk, and its map would not fit in memory (5 bytes an entry).
inline constexpr std::uint32_t entries_max = 1u << 29;
inline constexpr std::uint64_t disk_bytes_max = std::uint64_t{50} << 40;
inline constexpr std::uint64_t disk_bytes_max_v1 = (std::uint64_t{1} << 41) - sector_bytes;

enum class Version : std::uint8_t { v1 = 1, v2 = 2 };

inline constexpr std::uint32_t in_use_none = 0;
inline constexpr std::uint32_t in_use_open = 0x746F6E59;       // opened for writing, or a crash
inline constexpr std::uint32_t in_use_extension = 0x312E3276;  // closed; the extension is valid
inline constexpr std::uint32_t flag_empty = 1;                 // nothing was ever allocated
inline constexpr std::uint32_t flag_converting = 2;            // version conversion was begun

struct Geometry {
  std::uint32_t cylinders = 0;
  std::uint32_t heads = 0;
  std::uint32_t sectors = 0;
};

/// What a BIOS would make of the disk; informational.
Geometry geometry_of(std::uint64_t size_sectors);

/// The header, decoded. Offsets inside the file count in clusters everywhere but on disk.
struct Header {
  Version version = Version::v2;
  std::uint32_t heads = 0;
  std::uint32_t cylinders = 0;
  std::uint32_t cluster_sectors = cluster_bytes_default / sector_bytes;
  std::uint32_t entries = 0;  // of the BAT
  std::uint64_t size_sectors = 0;
  std::uint32_t in_use = in_use_none;
  std::uint32_t first_cluster = 1;  // number of clusters that header and BAT take
  std::uint32_t flags = 0;
  std::uint64_t extension_sector = 0;  // 0: none

  std::uint32_t cluster_bytes() const { return cluster_sectors * sector_bytes; }
  std::uint64_t size_bytes() const { return size_sectors * sector_bytes; }
  std::uint64_t bat_bytes() const { return header_bytes + std::uint64_t{entries} * 4; }
  std::uint64_t offset_of(std::uint32_t cluster) const {
    return std::uint64_t{cluster} * cluster_bytes();
  }
  bool is_open() const { return in_use == in_use_open; }

  /// BAT entry for file cluster `cluster`; 0 stays 0 (not allocated).
  std::uint32_t encode_entry(std::uint32_t cluster) const {
    return version == Version::v2 ? cluster : cluster * cluster_sectors;
  }
  /// The file cluster of a BAT entry: 0 = not allocated. An entry that cannot be one (inside header
  /// and BAT, not whole clusters, not wholly below `file_clusters`) is `bad_cluster`.
  static constexpr std::uint32_t bad_cluster = 0xFFFFFFFF;
  std::uint32_t decode_entry(std::uint32_t entry, std::uint64_t file_clusters) const;
};

/// Clusters that header and `entries` BAT entries take.
std::uint32_t header_clusters(std::uint64_t entries, std::uint32_t cluster_bytes);

/// The header of a new empty image; `size_bytes` is rounded up to whole clusters.
/// Errors: bad_request, too_large, with what is possible.
Outcome<Header> make_header(Version version, std::uint32_t cluster_bytes, std::uint64_t size_bytes);

/// Reads the first header_bytes of an image. Errors: corrupt (not a ploop image, or no image that
/// can be served: the line says which field).
Outcome<Header> decode_header(Bytes bytes);
/// Writes header_bytes at `to`.
void encode_header(Header const& header, Mutable_bytes to);

}  // namespace pstorage::ploop
