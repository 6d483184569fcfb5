// revoke.
#include <CLI/CLI.hpp>

#include "core/cli/commands.h"

namespace pstorage::cli {
namespace {

Outcome<void> revoke_file(Cli& cli, std::string const& path) {
  proto::Mds_request request;
  request.mutable_revoke()->set_path(path);
  PS_CHECK(cli.ask(std::move(request)));
  return success();
}

/// A volume that is a directory: whoever has it open holds leases of several of its files.
Outcome<void> revoke_below(Cli& cli, std::string const& path) {
  proto::Mds_request list;
  list.mutable_list_directory()->set_path(path);
  PS_TRY(auto const listed, cli.ask(std::move(list)));
  bool is_used = false;
  for (auto const& file : listed.files().files()) {
    proto::Mds_request lookup;
    lookup.mutable_lookup()->set_path(path + "/" + file.name());
    auto const found = cli.ask(std::move(lookup));
    if (!found.has_value() || found.value().file().holder().empty()) continue;
    is_used = true;
    PS_CHECK(revoke_file(cli, path + "/" + file.name()));
  }
  if (is_used) return success();
  return failure(Errc::not_found, "'" + path + "' is not in use by anybody");
}

Outcome<void> revoke(Cli& cli, std::string const& given) {
  auto const path = given.starts_with('/') ? given : "/" + given;
  auto done = revoke_file(cli, path);
  if (!done.has_value() && errc_of(done.error().code) == Errc::is_directory)
    done = revoke_below(cli, path);
  if (done.has_value()) cli.greet();
  return done;
}

}  // namespace

void add_lease_commands(Cli& cli) {
  auto const path = std::make_shared<std::string>();
  auto* const end = cli.add_command("revoke", "Ends the lease of a volume or file by force",
                                    [&cli, path] { return revoke(cli, *path); });
  end->add_option("PATH", *path, "Inside the cluster, e.g. /volumes/vm1")->required();
}

}  // namespace pstorage::cli
