// volume attach, detach, attached.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "blockdev/volume/attachment.h"
#include "blockdev/volume/volume_cli.h"
#include "core/cli/daemon.h"

namespace pstorage::volume {
namespace {

nlohmann::json json_of(Attachment const& one) {
  return {{"device", one.device()},
          {"volume", one.volume},
          {"cluster", one.cluster},
          {"server", one.server},
          {"keeper", one.is_kept ? nlohmann::json(one.keeper) : nlohmann::json()}};
}

/// The process that the command leaves behind: without it nobody would connect the device again.
Outcome<void> attach(Volume_cli& cli, Volume_options const& options) {
  Attachment wanted;
  PS_TRY(wanted.cluster, cli.cli().cluster());
  PS_TRY(auto const name, parse_volume_name(options.name));
  wanted.volume = name.snapshot.empty() ? name.name : name.name + "@" + name.snapshot;
  wanted.server = options.server.empty() ? default_server(wanted.cluster) : options.server;
  Attach_options how;
  how.is_read_only = options.is_read_only;
  how.timeout_s = options.timeout_s;
  how.patience_s = options.patience_s;
  if (!options.other.empty()) {
    how.index = device_index(options.other);
    if (!how.index)
      return failure(Errc::bad_request,
                     "bad device '" + options.other + "': /dev/nbd0, /dev/nbd1, ...");
  }
  cli::Daemon_start start(true);
  auto kept = Kept_device::attach(std::move(wanted), how);
  if (!kept.has_value()) {
    start.failed("pstorage", kept.error().text);
    return success();  // said by the process that the user waits for
  }
  auto attachment = kept.value().attachment();
  attachment.is_kept = true;
  if (cli.cli().is_json())
    cli.print_json(json_of(attachment));
  else
    cli.print_line(attachment.device());
  std::fflush(stdout);
  start.ready();
  kept.value().keep();
  return success();
}

Outcome<void> detach_one(Volume_cli& cli, Volume_options const& options) {
  auto const index = device_index(options.name);
  std::string cluster;
  if (!index) {
    PS_TRY(cluster, cli.cli().cluster());
  }
  for (auto const& one : attachments()) {
    bool const is_meant =
        index ? one.index == *index : one.volume == options.name && one.cluster == cluster;
    if (is_meant) return detach(one);
  }
  return failure(Errc::not_found,
                 "'" + options.name + "' is not attached here: see 'pstorage volume attached'");
}

Outcome<void> list_attached(Volume_cli& cli) {
  std::vector<std::vector<std::string>> rows;
  auto json = nlohmann::json::array();
  for (auto const& one : attachments()) {
    json.push_back(json_of(one));
    rows.push_back({one.device(), one.volume, one.cluster, one.server,
                    one.is_kept ? std::to_string(one.keeper) : "gone"});
  }
  if (cli.cli().is_json())
    cli.print_json(json);
  else
    cli.print_table({"DEVICE", "VOLUME", "CLUSTER", "SERVER", ">KEEPER"}, rows);
  return success();
}

}  // namespace

void add_attach_commands(Shared_cli const& cli, Shared_options const& options, CLI::App* group) {
  auto* const attach_command = cli->cli().add_command(
      "attach", "Makes a volume a block device of this host's kernel",
      [cli, options] { return attach(*cli, *options); }, group);
  attach_command->add_option("NAME", options->name, "Volume, or VOLUME@SNAPSHOT")->required();
  attach_command->add_option("DEVICE", options->other, "/dev/nbdN (default: one that is free)");
  attach_command->add_option("--server", options->server,
                             "ADDR[:PORT] or unix:PATH of pstorage-nbd (default: this host's)");
  attach_command->add_flag("--read-only", options->is_read_only, "The device refuses writes");
  attach_command
      ->add_option("--timeout", options->timeout_s,
                   "A request without an answer for so many seconds is sent again")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{3600}))
      ->capture_default_str();
  attach_command
      ->add_option("--patience", options->patience_s,
                   "Seconds that requests wait while there is no server, before they fail")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{31536000}))
      ->capture_default_str();
  cli->cli().add_json(attach_command);

  auto* const detach_command = cli->cli().add_command(
      "detach", "Takes an attached volume's device away",
      [cli, options] { return cli->run([&] { return detach_one(*cli, *options); }); }, group);
  detach_command->add_option("NAME", options->name, "Volume, or its device")->required();

  auto* const list_command = cli->cli().add_command(
      "attached", "Lists the volumes that are devices of this host",
      [cli] { return cli->run([&] { return list_attached(*cli); }); }, group);
  cli->cli().add_json(list_command);
}

}  // namespace pstorage::volume
