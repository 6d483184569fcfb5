#include "blockdev/ploop/format.h"

#include <array>
#include <bit>
#include <cstring>

#include "core/assert.h"
#include "core/size.h"

namespace pstorage::ploop {
namespace {

constexpr std::string_view signature_v1 = "WithoutFreeSpace";
constexpr std::string_view signature_v2 = "WithouFreSpacExt";  // sic
constexpr std::uint32_t type_expandable = 2;

Failure bad(std::string const& what) {
  return failure(Errc::corrupt, "not a usable ploop image: " + what);
}

bool is_cluster_size(std::uint64_t bytes) {
  return std::has_single_bit(bytes) && bytes >= cluster_bytes_min && bytes <= cluster_bytes_max;
}

Outcome<std::uint32_t> decode_first_cluster(Header const& header, std::uint32_t offset_sectors) {
  auto const needed = header_clusters(header.entries, header.cluster_bytes());
  if (offset_sectors == 0 || offset_sectors % header.cluster_sectors != 0)
    return bad("its data begins at sector " + std::to_string(offset_sectors) +
               ", not at a multiple of its cluster size (" +
               std::to_string(header.cluster_sectors) + " sectors)");
  auto const first = offset_sectors / header.cluster_sectors;
  if (first < needed)
    return bad("its data begins inside its block table (cluster " + std::to_string(first) + " of " +
               std::to_string(needed) + ")");
  return first;
}

}  // namespace

Geometry geometry_of(std::uint64_t size_sectors) {
  constexpr std::uint64_t lba_from = 504u << 11;  // 504 MiB: where CHS of a BIOS ends
  constexpr std::uint64_t lba_to = 8u << 21;      // 8 GiB
  constexpr std::array<std::uint32_t, 4> sectors = {63, 32, 16, 8};
  constexpr std::array<std::uint32_t, 4> heads = {16, 8, 4, 2};
  auto const cylinders = [&](std::uint64_t per) {
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(size_sectors / per, 0xFFFFFFFF));
  };
  if (size_sectors > lba_from && size_sectors <= lba_to) return {cylinders(63 * 16), 16, 63};
  for (auto const per_track : sectors)
    for (auto const count : heads)
      if (size_sectors % (per_track * count) == 0)
        return {cylinders(per_track * count), count, per_track};
  return {cylinders(1), 1, 1};
}

std::uint32_t Header::decode_entry(std::uint32_t entry, std::uint64_t file_clusters) const {
  if (entry == 0) return 0;
  auto cluster = entry;
  if (version == Version::v1) {
    if (entry % cluster_sectors != 0) return bad_cluster;
    cluster = entry / cluster_sectors;
  }
  return cluster >= first_cluster && cluster < file_clusters ? cluster : bad_cluster;
}

std::uint32_t header_clusters(std::uint64_t entries, std::uint32_t cluster_bytes) {
  return static_cast<std::uint32_t>((header_bytes + entries * 4 + cluster_bytes - 1) /
                                    cluster_bytes);
}

Outcome<Header> make_header(Version version, std::uint32_t cluster_bytes,
                            std::uint64_t size_bytes) {
  if (!is_cluster_size(cluster_bytes))
    return failure(Errc::bad_request, "bad cluster size " + std::to_string(cluster_bytes) +
                                          ": a power of two from 32K to 64M is possible");
  auto const limit = version == Version::v1 ? disk_bytes_max_v1 : disk_bytes_max;
  auto const too_large =
      failure(Errc::too_large, "the disk is too large: at most " + format_size(limit) +
                                   " in version " + (version == Version::v1 ? "1" : "2"));
  if (size_bytes == 0) return failure(Errc::bad_request, "a disk needs a size above 0");
  if (size_bytes > limit) return too_large;
  auto const entries = (size_bytes + cluster_bytes - 1) / cluster_bytes;
  if (entries > entries_max)
    return failure(Errc::too_large, "the disk has too many clusters; take larger ones");
  Header header;
  header.version = version;
  header.cluster_sectors = cluster_bytes / sector_bytes;
  header.entries = static_cast<std::uint32_t>(entries);
  header.size_sectors = entries * header.cluster_sectors;
  header.first_cluster = header_clusters(entries, cluster_bytes);
  // In version 1 the last cluster of data must have a sector number of 32 bits.
  if (version == Version::v1 &&
      (entries + header.first_cluster) * header.cluster_sectors > 0xFFFFFFFF)
    return too_large;
  auto const geometry = geometry_of(header.size_sectors);
  header.heads = geometry.heads;
  header.cylinders = geometry.cylinders;
  header.flags = flag_empty;
  return header;
}

Outcome<Header> decode_header(Bytes bytes) {
  if (bytes.size() < header_bytes) return bad("it is shorter than a header");
  auto const* at = bytes.data();
  auto const signature = as_text(bytes.first(16));
  Header header;
  if (signature == signature_v1)
    header.version = Version::v1;
  else if (signature != signature_v2)
    return bad("its first 16 bytes are no signature of one");
  if (load_le<std::uint32_t>(at + 16) != type_expandable)
    return bad("its disk type is " + std::to_string(load_le<std::uint32_t>(at + 16)) +
               ", only 2 is known");
  header.heads = load_le<std::uint32_t>(at + 20);
  header.cylinders = load_le<std::uint32_t>(at + 24);
  header.cluster_sectors = load_le<std::uint32_t>(at + 28);
  if (!is_cluster_size(std::uint64_t{header.cluster_sectors} * sector_bytes))
    return bad("its cluster size is " + std::to_string(header.cluster_sectors) +
               " sectors; powers of two from 64 to 131072 are possible");
  header.entries = load_le<std::uint32_t>(at + 32);
  header.size_sectors = load_le<std::uint64_t>(at + 36);
  if (header.version == Version::v1 && header.size_sectors > 0xFFFFFFFF)
    return bad("it is of version 1 and its size has more than 32 bits");
  if (header.entries == 0 || header.entries > entries_max)
    return bad("it has " + std::to_string(header.entries) + " block table entries");
  if (header.size_sectors == 0 ||
      header.size_sectors > std::uint64_t{header.entries} * header.cluster_sectors)
    return bad("its size (" + std::to_string(header.size_sectors) +
               " sectors) does not fit its block table");
  header.in_use = load_le<std::uint32_t>(at + 44);
  header.flags = load_le<std::uint32_t>(at + 52);
  header.extension_sector = load_le<std::uint64_t>(at + 56);
  PS_TRY(header.first_cluster, decode_first_cluster(header, load_le<std::uint32_t>(at + 48)));
  return header;
}

void encode_header(Header const& header, Mutable_bytes to) {
  PS_ASSERT(to.size() >= header_bytes);
  auto* at = to.data();
  auto const& signature = header.version == Version::v1 ? signature_v1 : signature_v2;
  std::memcpy(at, signature.data(), signature.size());
  store_le(at + 16, type_expandable);
  store_le(at + 20, header.heads);
  store_le(at + 24, header.cylinders);
  store_le(at + 28, header.cluster_sectors);
  store_le(at + 32, header.entries);
  store_le(at + 36, header.size_sectors);
  store_le(at + 44, header.in_use);
  store_le(at + 48, header.first_cluster * header.cluster_sectors);
  store_le(at + 52, header.flags);
  store_le(at + 56, header.extension_sector);
}

}  // namespace pstorage::ploop
