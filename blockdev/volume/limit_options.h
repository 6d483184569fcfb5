// Limits of volumes on command lines: of `pstorage volume` and of LUNs.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "blockdev/volume/limits.h"
#include "blockdev/volume/volume_work.h"

namespace CLI {
class App;
}

namespace pstorage::volume {

/// --iops, --mbps, --burst; below zero: not given.
struct Limit_options {
  std::int64_t iops = -1;
  double mbps = -1;
  std::int64_t burst_s = -1;
};

void add_limit_options(CLI::App* command, Limit_options& options);
/// Changes what is given, at once, also of a volume in use. Returns what holds now.
Outcome<Limits> change_limits(Volume_work& work, Volume_name const& name,
                              Limit_options const& options);
/// "500 requests/s, unlimited, burst 1 s".
std::string limits_text(Limits const& limits);
nlohmann::json limits_json(Limits const& limits);

}  // namespace pstorage::volume
