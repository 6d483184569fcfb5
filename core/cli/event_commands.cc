// get-event.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string_view>
#include <thread>

#include "core/cli/commands.h"
#include "core/cli/output.h"
#include "core/cli/status_lines.h"
#include "core/cli/times.h"
#include "core/runtime/real_clock.h"

namespace pstorage::cli {
namespace {

constexpr auto poll_interval = std::chrono::milliseconds(500);

struct Event_options {
  std::uint64_t after = 0;
  bool follows = false;
  std::string since;
  std::string severity = "INF";
};

/// The severities, the mildest first.
constexpr std::string_view severities[] = {"INF", "WRN", "ERR"};

bool is_at_least(std::string_view severity, std::string_view wanted) {
  auto const* const end = std::end(severities);
  return std::find(severities, end, severity) >= std::find(severities, end, wanted);
}

Outcome<void> print_events(Cli& cli, Event_options options) {
  std::uint64_t since_ms = 0;
  if (!options.since.empty()) {
    PS_TRY(since_ms, parse_moment(options.since, Real_clock().wall_ms()));
  }
  auto list = nlohmann::json::array();
  bool is_first = true;
  while (true) {
    proto::Mds_request request;
    request.mutable_get_events()->set_after(options.after);
    PS_TRY(auto const reply, cli.call(std::move(request)));
    google::protobuf::RepeatedPtrField<proto::Event> wanted;
    for (auto const& event : reply.events().events()) {
      options.after = event.number();
      if (event.time_ms() < since_ms || !is_at_least(event.severity(), options.severity)) continue;
      if (!cli.is_json()) {
        *wanted.Add() = event;
      } else if (options.follows) {
        std::printf("%s\n", to_json(event).dump().c_str());  // a line each: the list has no end
      } else {
        list.push_back(to_json(event));
      }
    }
    if (!cli.is_json()) {
      auto lines = event_lines(wanted);
      if (!is_first) lines.erase(lines.begin());
      print_lines(lines);
    }
    is_first = false;
    if (!reply.events().events().empty()) continue;
    if (!options.follows) break;
    // Whoever reads is gone: nobody is left to print for.
    if (std::fflush(stdout) != 0) return success();
    std::this_thread::sleep_for(poll_interval);
  }
  if (cli.is_json()) print_json(list);
  return success();
}

}  // namespace

void add_event_commands(Cli& cli) {
  auto const options = std::make_shared<Event_options>();
  auto* const events = cli.add_command("get-event", "Prints the event log",
                                       [&cli, options] { return print_events(cli, *options); });
  events->add_option("--after", options->after, "Only events behind this number");
  events->add_flag("-f,--follow", options->follows, "Go on with those that come");
  events->add_option("--since", options->since,
                     "Only events since: an age (30m, 12h, 7d) or '2026-01-31 12:34:56'");
  events->add_option("--severity", options->severity, "Only events at least so severe")
      ->check(CLI::IsMember({"INF", "WRN", "ERR"}, CLI::ignore_case))
      ->capture_default_str();
  cli.add_json(events);
}

}  // namespace pstorage::cli
