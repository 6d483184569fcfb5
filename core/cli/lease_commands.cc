// revoke.
#include <CLI/CLI.hpp>

#include "core/cli/commands.h"
#include "core/cli/revoke.h"

namespace pstorage::cli {
namespace {

Outcome<void> revoke_file(Mds_call const& call, std::string const& path) {
  proto::Mds_request request;
  request.mutable_revoke()->set_path(path);
  PS_CHECK(call(std::move(request)));
  return success();
}

/// A volume that is a directory: whoever has it open holds leases of several of its files.
Outcome<void> revoke_below(Mds_call const& call, std::string const& path) {
  proto::Mds_request list;
  list.mutable_list_directory()->set_path(path);
  PS_TRY(auto const listed, call(std::move(list)));
  bool is_used = false;
  for (auto const& file : listed.files().files()) {
    proto::Mds_request lookup;
    lookup.mutable_lookup()->set_path(path + "/" + file.name());
    auto const found = call(std::move(lookup));
    if (!found.has_value() || found.value().file().holder().empty()) continue;
    is_used = true;
    PS_CHECK(revoke_file(call, path + "/" + file.name()));
  }
  if (is_used) return success();
  return failure(Errc::not_found, "'" + path + "' is not in use by anybody");
}

}  // namespace

Outcome<void> revoke(Mds_call const& call, std::string const& path) {
  auto done = revoke_file(call, path);
  if (!done.has_value() && errc_of(done.error().code) == Errc::is_directory)
    return revoke_below(call, path);
  return done;
}

void add_lease_commands(Cli& cli) {
  auto const path = std::make_shared<std::string>();
  auto* const end =
      cli.add_command("revoke", "Ends the lease of a volume or file by force", [&cli, path] {
        auto done =
            revoke([&cli](proto::Mds_request request) { return cli.ask(std::move(request)); },
                   path->starts_with('/') ? *path : "/" + *path);
        if (done.has_value()) cli.greet();
        return done;
      });
  end->add_option("PATH", *path, "Inside the cluster, e.g. /volumes/vm1")->required();
}

}  // namespace pstorage::cli
