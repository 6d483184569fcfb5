// Snapshots of a volume for people and programs: of `pstorage volume` and of LUNs.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "blockdev/ploop/descriptor.h"

namespace pstorage::volume {

struct Snapshot_list {
  std::vector<std::string> headers;
  std::vector<std::vector<std::string>> rows;
  nlohmann::json json;
};
Snapshot_list snapshot_list(ploop::Descriptor const& descriptor);

/// "2026-01-31 12:34:56", UTC.
std::string utc_text(std::uint64_t wall_ms);
/// `name`, or the time `created` without a blank when it is empty.
std::string snapshot_name(std::string const& name, std::string const& created);

}  // namespace pstorage::volume
