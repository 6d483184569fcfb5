// volume limit.
#include <CLI/CLI.hpp>

#include "blockdev/volume/volume_cli.h"

namespace pstorage::volume {
namespace {

constexpr double mib = 1024.0 * 1024.0;

std::string text_of(std::uint64_t value, std::string const& unit) {
  return value == 0 ? "unlimited" : std::to_string(value) + unit;
}

Outcome<void> limit(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto const name, parse_plain_name(options.name));
  PS_TRY(auto* const session, cli.session());
  Volume_work work(*session);
  PS_TRY(auto const limits, change_limits(work, name, options.limits));
  if (cli.cli().is_json()) {
    auto json = limits_json(limits);
    json["name"] = name.name;
    cli.print_json(json);
  } else {
    cli.print_line(name.name + ": " + limits_text(limits));
  }
  return success();
}

}  // namespace

Outcome<Limits> change_limits(Volume_work& work, Volume_name const& name,
                              Limit_options const& options) {
  PS_TRY(auto const file, work.look_up(name));
  auto limits = limits_of({file.properties().begin(), file.properties().end()});
  auto const before = limits;
  if (options.iops >= 0) limits.iops = static_cast<std::uint64_t>(options.iops);
  if (options.mbps >= 0) limits.bytes_per_s = static_cast<std::uint64_t>(options.mbps * mib);
  if (options.burst_s >= 0) limits.burst_s = static_cast<std::uint64_t>(options.burst_s);
  if (limits != before) PS_CHECK(work.set_limits(name, limits));
  return limits;
}

std::string limits_text(Limits const& limits) {
  return text_of(limits.iops, " requests/s") + ", " + text_of(limits.bytes_per_s, " bytes/s") +
         ", burst " + std::to_string(limits.burst_s) + " s";
}

nlohmann::json limits_json(Limits const& limits) {
  return {{"iops", limits.iops}, {"bytes_per_s", limits.bytes_per_s}, {"burst_s", limits.burst_s}};
}

void add_limit_options(CLI::App* command, Limit_options& options) {
  command->add_option("--iops", options.iops, "Requests a second; 0: no limit")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{100'000'000}));
  command->add_option("--mbps", options.mbps, "MiB a second, read and written; 0: no limit")
      ->check(CLI::Range(0.0, 1e7));
  command
      ->add_option("--burst", options.burst_s, "As much as in so many seconds may come at once (1)")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{Limits::burst_s_max}));
}

void add_limit_commands(Shared_cli const& cli, Shared_options const& options, CLI::App* group) {
  auto* const command = cli->cli().add_command(
      "limit", "Shows or sets how fast a volume may be used, also in use",
      [cli, options] { return cli->run([&] { return limit(*cli, *options); }); }, group);
  command->add_option("NAME", options->name, "Name of the volume")->required();
  add_limit_options(command, options->limits);
  cli->cli().add_json(command);
}

}  // namespace pstorage::volume
