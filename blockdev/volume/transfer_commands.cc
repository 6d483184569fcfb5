// volume import, export.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "blockdev/volume/transfer.h"
#include "blockdev/volume/volume_cli.h"

namespace pstorage::volume {
namespace {

/// What an unfinished import is allowed to be gone on with. Its name says what it is, and whoever
/// works on it has its lease.
Outcome<std::uint64_t> find_start(Volume_cli& cli, Volume_work& work, New_volume const& made,
                                  Transfer_note const& now) {
  auto const found = work.look_up(made.name);
  if (!found.has_value()) {
    if (errc_of(found.error().code) != Errc::not_found) return found.error();
    PS_CHECK(work.create(made));
    PS_CHECK(work.note_import(made.name, now.text()));
    return std::uint64_t{0};
  }
  auto const refuse = [&](std::string const& why) {
    return failure(Errc::refused, "cannot go on with the unfinished '" + made.name.name +
                                      "': " + why + "; 'pstorage volume rm --now " +
                                      made.name.name + "' to start afresh");
  };
  auto const& properties = found.value().properties();
  auto const property = properties.find(import_property);
  if (property == properties.end()) return refuse("nothing is noted about it");
  auto const before = parse_note(property->second);
  if (!before.has_value()) return refuse(before.error().text);
  if (auto const same = check_same_source(before.value(), now); !same.has_value())
    return refuse(same.error().text);
  if ((found.value().type() == proto::TYPE_FILE) != made.is_raw)
    return refuse("it has another --format");
  if (cli.has_progress())
    std::fprintf(stderr, "going on after %llu MiB\n",
                 static_cast<unsigned long long>(before.value().done_bytes >> 20));
  return before.value().done_bytes;
}

void print_result(Volume_cli& cli, Transfer const& transfer, nlohmann::json out) {
  if (!cli.cli().is_json()) return;
  out["start"] = transfer.start();
  out["copied"] = transfer.copied_bytes();
  cli.print_json(out);
}

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
  made.name.name = name.name + importing_suffix;
  made.size_bytes =
      (source.size_bytes + ploop::sector_bytes - 1) / ploop::sector_bytes * ploop::sector_bytes;
  made.is_raw = options.format == "raw";
  std::error_code error;
  auto const where =
      source.is_uri() ? source.where : std::filesystem::absolute(source.where, error).string();
  Transfer_note note{where, source.format, source.size_bytes, source.modified_ns, 0};
  PS_TRY(note.done_bytes, find_start(cli, work, made, note));
  Transfer transfer(*session, cli.progress("importing"));
  auto done = transfer.import(source, made.name, note.done_bytes, [&](std::uint64_t done_bytes) {
    note.done_bytes = done_bytes;
    return work.note_import(made.name, note.text());
  });
  if (done.has_value()) done = work.rename(made.name, name);
  if (done.has_value()) {
    print_result(cli, transfer, {{"name", name.name}, {"size", made.size_bytes}});
    return work.note_import(name, {});
  }
  if (note.done_bytes > 0)
    return failure(done.error().code,
                   done.error().text + "; the same command goes on with '" + made.name.name + "'");
  auto const removed = work.remove(made.name, true);
  (void)
      removed;  // the first failure is the one to tell; what stays has a name that says what it is
  return done;
}

Outcome<void> export_volume(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto const name, parse_volume_name(options.name));
  PS_TRY(auto const target, plan_target(options.other, options.source_format));
  PS_TRY(auto* const session, cli.session());
  Transfer transfer(*session, cli.progress("exporting"));
  PS_CHECK(transfer.export_to(name, target));
  print_result(cli, transfer, {{"name", options.name}, {"target", target.where}});
  return success();
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
  cli->cli().add_json(import_command);

  auto* const export_command =
      add("export", "Writes a volume, or a snapshot of it, to a disk image", export_volume);
  export_command->add_option("NAME", options->name, "Volume, or VOLUME@SNAPSHOT")->required();
  export_command->add_option("TARGET", options->other, "File that is not there yet, or NBD URI")
      ->required();
  export_command->add_option("-f,--to", options->source_format,
                             "Format of the target: raw, qcow2, ..., or ploop: a directory "
                             "(default: by the name's ending, else raw)");
  cli->cli().add_json(export_command);
}

}  // namespace pstorage::volume
