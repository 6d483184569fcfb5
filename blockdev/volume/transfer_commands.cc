// volume import, export.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "blockdev/volume/transfer.h"
#include "blockdev/volume/volume_cli.h"

namespace pstorage::volume {
namespace {

/// A volume that is not whole has another name: one that somebody uses is.
Outcome<void> import(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto const name, parse_plain_name(options.other));
  PS_TRY(auto const source, inspect_source(options.name, options.source_format));
  if (source.size_bytes == 0)
    return failure(Errc::bad_request, options.name + " is empty: there is nothing to import");
  PS_TRY(auto* const session, cli.session());
  Volume_work work(*session);
  if (auto const found = work.look_up(name); found.has_value())
    return failure(Errc::exists, "the volume '" + name.name + "' exists already");
  New_volume made;
  made.name.name = name.name + ".importing-" + ploop::new_guid(session->random()).substr(1, 8);
  made.size_bytes =
      (source.size_bytes + ploop::sector_bytes - 1) / ploop::sector_bytes * ploop::sector_bytes;
  made.is_raw = options.format == "raw";
  PS_CHECK(work.create(made));
  auto done = Transfer(*session, cli.progress("importing")).import(source, made.name);
  if (done.has_value()) done = work.rename(made.name, name);
  if (done.has_value()) return success();
  auto const removed = work.remove(made.name, true);
  (void)
      removed;  // the first failure is the one to tell; what stays has a name that says what it is
  return done;
}

Outcome<void> export_volume(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto const name, parse_volume_name(options.name));
  PS_TRY(auto const target, plan_target(options.other, options.source_format));
  PS_TRY(auto* const session, cli.session());
  return Transfer(*session, cli.progress("exporting")).export_to(name, target);
}

}  // namespace

void add_transfer_commands(Shared_cli const& cli, Shared_options const& options, CLI::App* group) {
  auto const add = [&](char const* name, char const* description,
                       Outcome<void> (*action)(Volume_cli&, Volume_options const&)) {
    return cli->cli().add_command(
        name, description,
        [cli, options, action] { return cli->run([&] { return action(*cli, *options); }); }, group);
  };
  auto* const import_command = add("import", "Makes a volume from a disk image", import);
  import_command->add_option("SOURCE", options->name, "File, or NBD URI")->required();
  import_command->add_option("NAME", options->other, "Name of the new volume")->required();
  import_command->add_option("-f,--from", options->source_format,
                             "Format of the source: raw, qcow2, ... (default: found out)");
  import_command->add_option("--format", options->format, "Of the volume: ploop or raw")
      ->check(CLI::IsMember({"ploop", "raw"}))
      ->capture_default_str();

  auto* const export_command =
      add("export", "Writes a volume, or a snapshot of it, to a disk image", export_volume);
  export_command->add_option("NAME", options->name, "Volume, or VOLUME@SNAPSHOT")->required();
  export_command->add_option("TARGET", options->other, "File that is not there yet, or NBD URI")
      ->required();
  export_command->add_option("-f,--to", options->source_format,
                             "Format of the target: raw, qcow2, ..., or ploop: a directory "
                             "(default: by the name's ending, else raw)");
}

}  // namespace pstorage::volume
