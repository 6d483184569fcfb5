// stat, list-services.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

#include "core/cli/commands.h"
#include "core/cli/daemon.h"
#include "core/cli/output.h"
#include "core/cli/screen_config.h"
#include "core/cli/status_lines.h"
#include "core/config/etc.h"

namespace pstorage::cli {
namespace {

struct Stat_options {
  bool is_numeric = false;
  bool is_xml = false;
  double watch_s = 0;  // 0: once
};

void print_report(proto::Status_reply const& status, Screen_config const& config) {
  print_lines(summary_lines(status, {}));
  for (auto const kind : {Table_kind::mds, Table_kind::cs, Table_kind::client}) {
    Table_options options;
    options.is_numeric = config.is_numeric;
    options.sort = kind == Table_kind::mds  ? config.mds
                   : kind == Table_kind::cs ? config.cs
                                            : config.client;
    auto const lines = service_lines(status, kind, options);
    if (kind == Table_kind::client && lines.size() == 1) continue;
    std::printf("\n");
    print_lines(lines);
  }
}

Outcome<void> print_status(Cli& cli, Stat_options const& options) {
  PS_TRY(auto config, load_screen_config());
  config.is_numeric = config.is_numeric || options.is_numeric;
  auto const pause = std::chrono::duration<double>(options.watch_s);
  while (true) {
    proto::Mds_request request;
    request.mutable_get_status();
    PS_TRY(auto const reply,
           options.is_xml ? cli.ask(std::move(request)) : cli.call(std::move(request)));
    auto const& status = reply.cluster_status();
    if (options.is_xml) {
      std::printf("%s\n", xml_text("status", to_json(status)).c_str());
    } else if (cli.is_json() && options.watch_s != 0) {
      std::printf("%s\n", to_json(status).dump().c_str());  // a line each
    } else if (cli.is_json()) {
      print_json(to_json(status));
    } else {
      print_report(status, config);
    }
    if (options.watch_s == 0) return success();
    if (!cli.is_json() && !options.is_xml) std::printf("\n");
    // Whoever reads is gone: nobody is left to print for.
    if (std::fflush(stdout) != 0) return success();
    std::this_thread::sleep_for(pause);
  }
}

Outcome<void> list_services(Cli& cli, bool all) {
  proto::Mds_request request;
  request.mutable_list_services();
  PS_TRY(auto const reply, cli.call(std::move(request)));
  PS_TRY(auto const host, host_id(true));
  auto list = nlohmann::json::array();
  std::vector<std::vector<std::string>> rows;
  for (auto const& service : reply.services().services()) {
    // By name too: on a machine that plays several hosts (devcluster) all of them are "this one".
    bool const is_here = service.host_id() == host.value || service.host_name() == host_name();
    if (service.kind() == "CLIENT" || !(all || is_here)) continue;
    list.push_back(to_json(service));
    rows.push_back({service.kind(), std::to_string(service.id()),
                    service.state() + (service.is_master() ? " (master)" : ""), service.host_name(),
                    service.address()});
  }
  if (cli.is_json()) {
    print_json({{"services", list}});
  } else {
    print_table({"TYPE", ">ID", "STATUS", "HOST", "ADDRESS"}, rows);
  }
  return success();
}

void add_stat(Cli& cli) {
  auto const options = std::make_shared<Stat_options>();
  auto* const stat = cli.add_command("stat", "Shows the state of the cluster",
                                     [&cli, options] { return print_status(cli, *options); });
  cli.add_json(stat);
  stat->add_flag("-X,--xml", options->is_xml, "Print XML")->excludes("--json");
  stat->add_flag("-n,--numeric", options->is_numeric, "Addresses of hosts, not names");
  stat->add_option("--watch", options->watch_s, "Print it again every so many seconds (default 2)")
      ->expected(0, 1)
      ->default_str("2")
      ->check(CLI::Range(0.1, 86400.0));
}

}  // namespace

void add_status_commands(Cli& cli) {
  add_stat(cli);
  auto const all = std::make_shared<bool>(false);
  auto* const services = cli.add_command("list-services", "Lists the services of this host",
                                         [&cli, all] { return list_services(cli, *all); });
  services->add_flag("-a,--all", *all, "Of all hosts");
  cli.add_json(services);
}

}  // namespace pstorage::cli
