// Attributes of files and directories, and the rules for paths.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "mds.pb.h"
#include "mds/planner/placement.h"

namespace pstorage::mds {

inline constexpr std::uint32_t replicas_max = 64;
inline constexpr std::uint32_t chunk_size_min = 4096;
inline constexpr std::uint32_t chunk_size_max = 1u << 30;
inline constexpr std::uint32_t chunk_size_default = 64u << 20;
inline constexpr std::uint64_t file_bytes_max = 1ull << 50;  // 1 PiB
inline constexpr std::size_t path_bytes_max = 4096;
inline constexpr std::size_t name_bytes_max = 255;
inline constexpr std::size_t properties_max = 64;
inline constexpr std::size_t property_bytes_max = 4096;  // name or value

/// All attributes of a file, each with a value.
struct Attribute_set {
  std::uint32_t norm = 1;
  std::uint32_t min = 1;
  Failure_domain domain = Failure_domain::host;
  std::uint32_t tier = 0;
  std::uint32_t chunk_size = chunk_size_default;
  bool client_ssd_cache = false;
  bool waits_when_full = false;  // on-full=wait
  bool operator==(Attribute_set const&) const = default;
};

/// `base` with the set fields of `change`. replicas_norm without replicas_min derives the majority.
/// Errors: bad_request, naming the attribute.
Outcome<Attribute_set> changed_attributes(Attribute_set base, proto::Attributes const& change);

proto::Attributes to_proto(Attribute_set const& attributes);

/// Splits an absolute path. "/" has no names. Errors: bad_request.
Outcome<std::vector<std::string>> split_path(std::string const& path);

}  // namespace pstorage::mds
