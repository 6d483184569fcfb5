// get-config, set-config.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>

#include "core/cli/commands.h"
#include "core/cli/output.h"

namespace pstorage::cli {
namespace {

Outcome<void> get_config(Cli& cli) {
  proto::Mds_request request;
  request.mutable_get_config();
  PS_TRY(auto const reply, cli.call(std::move(request)));
  if (cli.is_json()) {
    print_json(to_json(reply.config())["values"]);
    return success();
  }
  std::map<std::string, std::string> const sorted(reply.config().values().begin(),
                                                  reply.config().values().end());
  for (auto const& [name, value] : sorted) std::printf("%s=%s\n", name.c_str(), value.c_str());
  return success();
}

Outcome<void> set_config(Cli& cli, std::vector<std::string> const& changes) {
  for (auto const& change : changes) {
    auto const equals = change.find('=');
    if (equals == std::string::npos || equals + 1 == change.size()) {
      return failure(Errc::bad_request, "'" + change + "': give name=value");
    }
    proto::Mds_request request;
    request.mutable_set_config()->set_name(change.substr(0, equals));
    request.mutable_set_config()->set_value(change.substr(equals + 1));
    PS_TRY(auto const reply, cli.call(std::move(request)));
  }
  return success();
}

}  // namespace

void add_config_commands(Cli& cli) {
  cli.add_json(cli.add_command("get-config", "Prints the settings of the cluster",
                               [&cli] { return get_config(cli); }));
  auto const changes = std::make_shared<std::vector<std::string>>();
  auto* const set = cli.add_command("set-config", "Changes settings of the cluster",
                                    [&cli, changes] { return set_config(cli, *changes); });
  set->add_option("SETTING", *changes, "name=value ...")->required();
}

}  // namespace pstorage::cli
