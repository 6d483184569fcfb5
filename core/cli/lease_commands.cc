// revoke.
#include <CLI/CLI.hpp>

#include "core/cli/commands.h"

namespace pstorage::cli {
namespace {

Outcome<void> revoke(Cli& cli, std::string const& given) {
  proto::Mds_request request;
  request.mutable_revoke()->set_path(given.starts_with('/') ? given : "/" + given);
  PS_TRY(auto const reply, cli.call(std::move(request)));
  return success();
}

}  // namespace

void add_lease_commands(Cli& cli) {
  auto const path = std::make_shared<std::string>();
  auto* const end = cli.add_command("revoke", "Ends the lease of a file by force",
                                    [&cli, path] { return revoke(cli, *path); });
  end->add_option("PATH", *path, "File inside the cluster, e.g. /volumes/vm1")->required();
}

}  // namespace pstorage::cli
