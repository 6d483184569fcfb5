// volume snapshot, snapshots, rollback, snapshot-rm, clone.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "blockdev/volume/volume_cli.h"

namespace pstorage::volume {
namespace {

/// "monday" of "vm1 monday" or of "vm1@monday".
Outcome<Volume_name> with_snapshot(Volume_options const& options) {
  PS_TRY(auto name, parse_volume_name(options.name));
  if (name.snapshot.empty()) name.snapshot = options.other;
  if (name.snapshot.empty())
    return failure(Errc::bad_request,
                   "name a snapshot; 'pstorage volume snapshots " + name.name + "' lists them");
  return name;
}

Outcome<void> snapshot(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto name, parse_volume_name(options.name));
  if (name.snapshot.empty()) name.snapshot = options.other;
  PS_TRY(auto* const session, cli.session());
  auto const now = utc_text(session->wall_ms());
  name.snapshot = snapshot_name(name.snapshot, now);
  PS_CHECK(Volume_work(*session).snapshot({name.name, {}}, name.snapshot, now));
  if (cli.cli().is_json())
    cli.print_json({{"volume", name.name}, {"snapshot", name.snapshot}});
  else
    cli.print_line(name.name + "@" + name.snapshot);
  return success();
}

Outcome<void> snapshots(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto const name, parse_plain_name(options.name));
  PS_TRY(auto* const session, cli.session());
  PS_TRY(auto const descriptor, Volume_work(*session).descriptor(name));
  auto const list = snapshot_list(descriptor);
  if (cli.cli().is_json())
    cli.print_json(list.json);
  else
    cli.print_table(list.headers, list.rows);
  return success();
}

Outcome<void> roll_back(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto const name, with_snapshot(options));
  PS_TRY(auto* const session, cli.session());
  return Volume_work(*session).roll_back(name);
}

Outcome<void> remove_snapshot(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto const name, with_snapshot(options));
  PS_TRY(auto* const session, cli.session());
  return Volume_work(*session).remove_snapshot(name, cli.progress("merging"));
}

Outcome<void> clone(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto const source, parse_volume_name(options.name));
  PS_TRY(auto const target, parse_plain_name(options.other));
  PS_TRY(auto* const session, cli.session());
  return Volume_work(*session).clone(source, target, utc_text(session->wall_ms()));
}

}  // namespace

Snapshot_list snapshot_list(ploop::Descriptor const& descriptor) {
  auto const name_of = [&](std::string const& guid) -> std::string {
    auto const* const delta = descriptor.find(guid);
    if (delta == nullptr) return "";
    return delta->name.empty() ? delta->guid : delta->name;
  };
  auto const current = descriptor.find(descriptor.top())->parent;
  Snapshot_list list{{"NAME", "CREATED", "PARENT", "C", "UUID"}, {}, nlohmann::json::array()};
  for (auto const& delta : descriptor.deltas()) {
    if (delta.guid == descriptor.top()) continue;
    auto const label = name_of(delta.guid);
    auto const parent = name_of(delta.parent);
    bool const is_current = delta.guid == current;
    list.rows.push_back({label, delta.created, parent, is_current ? "*" : "", delta.guid});
    list.json.push_back({{"name", label},
                         {"created", delta.created},
                         {"parent", parent},
                         {"current", is_current},
                         {"guid", delta.guid},
                         {"file", delta.file}});
  }
  return list;
}

std::string snapshot_name(std::string const& name, std::string const& created) {
  auto text = name.empty() ? created : name;
  if (name.empty()) std::replace(text.begin(), text.end(), ' ', '_');
  return text;
}

bool Volume_cli::has_progress() const {
  return ::isatty(STDERR_FILENO) != 0 && !cli_.options().is_quiet && !cli_.is_json();
}

ploop::Progress Volume_cli::progress(std::string what) const {
  if (!has_progress()) return [](std::uint64_t, std::uint64_t) {};
  return [what = std::move(what), shown = ~std::uint64_t{0}](std::uint64_t done,
                                                             std::uint64_t all) mutable {
    auto const percent = all == 0 ? 100 : done * 100 / all;
    if (percent == shown) return;
    shown = percent;
    std::fprintf(stderr, "\r%s: %llu %%%s", what.c_str(), static_cast<unsigned long long>(percent),
                 done == all ? "\n" : "");
  };
}

void add_snapshot_commands(Shared_cli const& cli, Shared_options const& options, CLI::App* group) {
  auto const add = [&](char const* name, char const* description,
                       Outcome<void> (*action)(Volume_cli&, Volume_options const&)) {
    return cli->cli().add_command(
        name, description,
        [cli, options, action] { return cli->run([&] { return action(*cli, *options); }); }, group);
  };
  auto* const snapshot_command =
      add("snapshot", "Keeps the present state of a ploop volume, also in use", snapshot);
  snapshot_command->add_option("NAME", options->name, "Volume, or VOLUME@SNAPSHOT")->required();
  snapshot_command->add_option("-n,--name", options->other,
                               "Name of the snapshot (default: the time)");
  cli->cli().add_json(snapshot_command);

  auto* const snapshots_command = add("snapshots", "Lists the snapshots of a volume", snapshots);
  snapshots_command->add_option("NAME", options->name, "Name of the volume")->required();
  cli->cli().add_json(snapshots_command);

  auto* const rollback_command =
      add("rollback", "Goes back to a snapshot; what came later is lost", roll_back);
  rollback_command->add_option("NAME", options->name, "Volume, or VOLUME@SNAPSHOT")->required();
  rollback_command->add_option("SNAPSHOT", options->other, "Name or UUID of the snapshot");

  auto* const remove_command =
      add("snapshot-rm", "Removes a snapshot; of a volume in use, the newest one", remove_snapshot);
  remove_command->add_option("NAME", options->name, "Volume, or VOLUME@SNAPSHOT")->required();
  remove_command->add_option("SNAPSHOT", options->other, "Name or UUID of the snapshot");

  auto* const clone_command =
      add("clone", "Makes a volume that begins as another one, or its snapshot", clone);
  clone_command->add_option("SOURCE", options->name, "Volume, or VOLUME@SNAPSHOT")->required();
  clone_command->add_option("NAME", options->other, "Name of the new volume")->required();
}

}  // namespace pstorage::volume
