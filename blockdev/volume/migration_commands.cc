// volume allow-migration.
#include <CLI/CLI.hpp>

#include "blockdev/volume/volume_cli.h"
#include "core/cli/times.h"

namespace pstorage::volume {
namespace {

Outcome<void> allow_migration(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto const name, parse_plain_name(options.name));
  PS_TRY(auto const how_long, cli::parse_age(options.allowed_for));
  PS_TRY(auto* const session, cli.session());
  return Volume_work(*session).allow_migration(name, how_long);
}

}  // namespace

void add_migration_commands(Shared_cli const& cli, Shared_options const& options, CLI::App* group) {
  auto* const command = cli->cli().add_command(
      "allow-migration", "Lets a second host take a volume over while it is in use",
      [cli, options] { return cli->run([&] { return allow_migration(*cli, *options); }); }, group);
  command->add_option("NAME", options->name, "Name of the volume")->required();
  command
      ->add_option("--for", options->allowed_for,
                   "For how long: a number with d, h, m or s; 0: no more")
      ->capture_default_str();
}

}  // namespace pstorage::volume
