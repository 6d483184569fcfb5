// volume rm, trash, undelete.
#include <CLI/CLI.hpp>

#include "blockdev/volume/volume_cli.h"
#include "core/cli/times.h"
#include "core/size.h"

namespace pstorage::volume {
namespace {

Outcome<void> remove(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto const name, parse_plain_name(options.name));
  PS_TRY(auto* const session, cli.session());
  Volume_work work(*session);
  PS_TRY(auto const retention, work.retention());
  PS_CHECK(work.remove(name, options.now || retention == Duration{0}));
  // What has been there for long enough goes now: there is no daemon for it.
  PS_CHECK(work.purge(retention));
  return success();
}

Outcome<void> trash(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto* const session, cli.session());
  Volume_work work(*session);
  if (!options.retention.empty()) {
    PS_TRY(auto const retention, cli::parse_age(options.retention));
    PS_CHECK(work.set_retention(retention));
  }
  PS_TRY(auto const retention, work.retention());
  PS_TRY(auto const purged, work.purge(options.purges ? Duration{0} : retention));
  PS_TRY(auto const all, work.trash());
  std::vector<std::vector<std::string>> rows;
  auto json = nlohmann::json::array();
  for (auto const& one : all) {
    auto const kept_ms = static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(retention).count());
    rows.push_back({one.name, format_size(one.size_bytes), utc_text(one.deleted_ms),
                    utc_text(one.deleted_ms + kept_ms), one.id});
    json.push_back({{"name", one.name},
                    {"size", one.size_bytes},
                    {"deleted_ms", one.deleted_ms},
                    {"expires_ms", one.deleted_ms + kept_ms},
                    {"id", one.id}});
  }
  if (cli.cli().is_json()) {
    cli.print_json(json);
  } else {
    if (purged > 0) cli.print_line(std::to_string(purged) + " deleted for good");
    cli.print_table({"NAME", ">SIZE", "DELETED", "KEPT UNTIL", "ID"}, rows);
  }
  return success();
}

Outcome<void> undelete(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto* const session, cli.session());
  return Volume_work(*session).undelete(options.name, options.target_name);
}

}  // namespace

void add_trash_commands(Shared_cli const& cli, Shared_options const& options, CLI::App* group) {
  auto const add = [&](char const* name, char const* description,
                       Outcome<void> (*action)(Volume_cli&, Volume_options const&)) {
    return cli->cli().add_command(
        name, description,
        [cli, options, action] { return cli->run([&] { return action(*cli, *options); }); }, group);
  };
  auto* const remove_command = add("rm", "Moves a volume to the trash", remove);
  remove_command->add_option("NAME", options->name, "Name of the volume")->required();
  remove_command->add_flag("--now", options->now, "Delete it and its data at once");

  auto* const trash_command = add("trash", "Lists deleted volumes", trash);
  trash_command->add_option("--retention", options->retention,
                            "From now on keep them for this long: 7d, 12h, 30m; 0: not at all");
  trash_command->add_flag("--purge", options->purges, "Delete all of them for good, now");
  cli->cli().add_json(trash_command);

  auto* const undelete_command = add("undelete", "Takes a volume back from the trash", undelete);
  undelete_command->add_option("NAME", options->name, "What it was called, or its ID")->required();
  undelete_command->add_option("--as", options->target_name, "New name (default: the old one)");
}

}  // namespace pstorage::volume
