// pstorage-iscsi list.
#include <cstdio>

#include "core/cli/output.h"
#include "core/size.h"
#include "iscsi/tool/commands.h"

namespace pstorage::iscsi {
namespace {

constexpr std::uint64_t mebi = 1u << 20;

}  // namespace

Outcome<Commands::Row> Commands::describe(std::string const& name) {
  Row row;
  PS_TRY(row.target, state_.load(name));
  for (auto const& [number, lun] : row.target.luns) {
    auto const volume = state_.volume(lun.volume);
    if (volume.has_value()) row.volumes[number] = volume.value();
  }
  bool const is_here = row.target.host == host_;
  bool const runs = is_here ? runs_here(row.target) : row.target.should_run;
  row.status = runs ? "running" : row.target.should_run ? "failed" : "stopped";
  return row;
}

void Commands::print_table_of(std::vector<Row> const& rows) const {
  std::vector<std::vector<std::string>> cells;
  for (auto const& row : rows) {
    std::string portals;
    for (auto const& one : row.target.portal_texts()) portals += (portals.empty() ? "" : ",") + one;
    cells.push_back({row.target.iqn(), row.status, std::to_string(row.target.luns.size()),
                     row.target.host.empty() ? "-" : row.target.host, portals});
  }
  cli::print_table({"IQN", "STATUS", "LUNs", "HOST", "PORTAL(s)"}, cells);
}

void Commands::print_target(Row const& row) const {
  auto const& target = row.target;
  std::printf("Target %s:\n", target.iqn().c_str());
  if (target.portals.empty()) std::printf(" Portals:     %s\n", target.address.text().c_str());
  for (auto const& [host, portal] : target.portals) {
    std::printf(" Portals:     %s, group %u, host %s, %s\n", portal.text().c_str(),
                static_cast<unsigned>(portal.group), host.c_str(),
                host == target.host ? "active" : "standby");
  }
  std::printf(" Status:      %s\n Registered:  %s\n Host:        %s\n", row.status.c_str(),
              target.host.empty() ? "no" : "yes", target.host.empty() ? "-" : target.host.c_str());
  std::printf(" Failover:    %s%s%s\n", target.may_move ? "on" : "off",
              target.device.empty() ? "" : ", address on ", target.device.c_str());
  if (!target.holder.empty()) std::printf(" Served by:   %s\n", target.holder.c_str());
  for (auto const& user : target.incoming) std::printf(" CHAP:        %s\n", user.c_str());
  if (!target.outgoing.empty()) std::printf(" Mutual CHAP: %s\n", target.outgoing.c_str());
  for (auto const& one : target.allowed) std::printf(" Allowed:     %s\n", one.c_str());
  for (auto const& [number, lun] : target.luns) {
    auto const volume = row.volumes.find(number);
    bool const exists = volume != row.volumes.end();
    bool const is_online = exists && row.status == "running";
    std::printf(" LUN: %3u, Size: %6lluM, Used: %6lluM, Online: %s, Volume: %s\n", number,
                exists ? static_cast<unsigned long long>(volume->second.size_bytes / mebi) : 0ull,
                exists ? static_cast<unsigned long long>(volume->second.mapped_bytes / mebi) : 0ull,
                is_online ? "Yes" : "No", exists ? lun.volume.c_str() : "missing");
    if (exists && volume->second.limits.is_any()) {
      std::printf("           Limits: %s\n", volume::limits_text(volume->second.limits).c_str());
    }
  }
}

namespace {

nlohmann::json json_of(Target const& target, std::string const& status,
                       std::map<unsigned, Volume_info> const& volumes) {
  auto luns = nlohmann::json::array();
  for (auto const& [number, lun] : target.luns) {
    nlohmann::json one{{"lun", number}, {"volume", lun.volume}, {"uuid", lun.uuid}};
    auto const volume = volumes.find(number);
    if (volume != volumes.end()) {
      one["size"] = volume->second.size_bytes;
      one["used"] = volume->second.mapped_bytes;
      one["format"] = volume->second.is_raw ? "raw" : "ploop";
      one["limits"] = volume::limits_json(volume->second.limits);
    }
    luns.push_back(std::move(one));
  }
  auto portals = nlohmann::json::array();
  for (auto const& [host, portal] : target.portals) {
    portals.push_back({{"host", host},
                       {"portal", portal.text()},
                       {"group", portal.group},
                       {"state", host == target.host ? "active" : "standby"}});
  }
  return {{"iqn", target.iqn()},
          {"status", status},
          {"host", target.host},
          {"portal", target.portal_texts().front()},
          {"failover", target.may_move},
          {"device", target.device},
          {"portals", portals},
          {"served_by", target.holder},
          {"luns", luns},
          {"chap", target.incoming},
          {"mutual_chap", target.outgoing},
          {"allowed", target.allowed}};
}

}  // namespace

Outcome<void> Commands::list() {
  std::vector<std::string> names;
  if (!options_.target.empty()) {
    PS_TRY(auto const name, target_name(options_.target));
    names.push_back(name);
  }
  PS_CHECK(prepare());
  if (options_.target.empty()) {
    PS_TRY(names, state_.target_names());
  }
  std::vector<Row> rows;
  auto json = nlohmann::json::array();
  for (auto const& name : names) {
    PS_TRY(auto row, describe(name));
    bool const is_wanted = options_.all || !options_.target.empty() || row.target.host == host_;
    if (!is_wanted) continue;
    json.push_back(json_of(row.target, row.status, row.volumes));
    rows.push_back(std::move(row));
  }
  if (options_.json) {
    cli::print_json(options_.target.empty() ? json : json.front());
  } else if (options_.target.empty()) {
    print_table_of(rows);
  } else {
    print_target(rows.front());
  }
  return success();
}

}  // namespace pstorage::iscsi
