// rm-cs, why, ok-to-stop.
#include <CLI/CLI.hpp>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <thread>

#include "core/cli/commands.h"
#include "core/cli/output.h"
#include "core/cli/paths.h"

namespace pstorage::cli {
namespace {

constexpr auto poll_interval = std::chrono::milliseconds(500);
constexpr int polls_a_line = 4;

struct Release_options {
  std::vector<std::string> ids;
  bool waits = false;
  bool is_forced = false;
  bool cancels = false;
};

/// 1026 or CS#1026 (`prefix` "CS#"). Errors: bad_request.
Outcome<std::uint32_t> parse_id(std::string const& text, std::string const& prefix) {
  auto const digits = text.starts_with(prefix) ? text.substr(prefix.size()) : text;
  std::uint32_t id = 0;
  auto const parsed = std::from_chars(digits.data(), digits.data() + digits.size(), id);
  if (digits.empty() || parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) {
    return failure(Errc::bad_request,
                   "'" + text + "' is not an id: 'pstorage list-services --all' lists them");
  }
  return id;
}

/// Waits until the server has left the list of services.
Outcome<void> wait_until_gone(Cli& cli, std::uint32_t id) {
  for (int polls = 0;; ++polls) {
    proto::Mds_request request;
    request.mutable_get_status();
    PS_TRY(auto const reply, cli.call(std::move(request)));
    auto const& status = reply.cluster_status();
    proto::Service const* found = nullptr;
    for (auto const& service : status.services()) {
      if (service.kind() == "CS" && service.id() == id) found = &service;
    }
    if (found == nullptr) return success();
    if (found->state().find("releasing") == std::string::npos) {
      return failure(Errc::refused,
                     "CS#" + std::to_string(id) + " is " + found->state() + ": it stays");
    }
    if (polls % polls_a_line == 0 && !cli.options().is_quiet && !cli.is_json()) {
      std::printf(
          "  %u replicas left%s%s\n", found->replicas(),
          status.repair_eta_s() == 0 ? "" : ", ready in about ",
          status.repair_eta_s() == 0 ? "" : duration_text(status.repair_eta_s() * 1000).c_str());
      std::fflush(stdout);
    }
    std::this_thread::sleep_for(poll_interval);
  }
}

Outcome<void> release_servers(Cli& cli, Release_options const& options) {
  std::vector<std::uint32_t> ids;
  for (auto const& text : options.ids) {
    PS_TRY(auto const id, parse_id(text, "CS#"));
    ids.push_back(id);
  }
  bool const prints = !cli.options().is_quiet;
  for (auto const id : ids) {
    proto::Mds_request request;
    auto& release = *request.mutable_release_cs();
    release.set_cs(id);
    release.set_forced(options.is_forced);
    release.set_cancel(options.cancels);
    PS_TRY(auto const reply, cli.call(std::move(request)));
    if (!prints) continue;
    std::printf(options.cancels ? "CS#%u stays\n" : "Removing CS#%u ...\n", id);
    std::fflush(stdout);
  }
  // All of them are on their way before the first is waited for: they move at the same time.
  if (options.waits && !options.cancels) {
    for (auto const id : ids) PS_CHECK(wait_until_gone(cli, id));
  }
  if (!prints || options.cancels) return success();
  std::printf(options.waits
                  ? "done\n"
                  : "done; it is 'releasing' in 'pstorage list-services --all' until its replicas "
                    "have been moved\n");
  return success();
}

bool is_number(std::string const& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

Outcome<void> explain(Cli& cli, std::string const& what, bool is_inside) {
  proto::Mds_request request;
  if (is_number(what)) {
    std::uint64_t chunk = 0;
    auto const parsed = std::from_chars(what.data(), what.data() + what.size(), chunk);
    if (parsed.ec != std::errc()) return failure(Errc::bad_request, "no chunk " + what);
    request.mutable_explain()->set_chunk(chunk);
  } else {
    PS_TRY(auto const cluster, cli.cluster());
    PS_TRY(auto const path, cluster_path(cluster, what, is_inside || what.starts_with('/')));
    request.mutable_explain()->set_path(path);
  }
  PS_TRY(auto const reply, cli.call(std::move(request)));
  auto const& explanation = reply.explanation();
  if (cli.is_json()) {
    print_json(to_json(explanation));
    return success();
  }
  for (auto const& one : explanation.chunks()) {
    std::printf("Chunk %llu (number %u of '%s') is %s\n",
                static_cast<unsigned long long>(one.chunk()), one.index(), one.file().c_str(),
                one.state().c_str());
    if (!one.reason().empty()) std::printf("  why:  %s\n", one.reason().c_str());
    if (!one.next().empty()) std::printf("  next: %s\n", one.next().c_str());
  }
  std::printf("%llu of %llu chunks are healthy\n",
              static_cast<unsigned long long>(explanation.healthy()),
              static_cast<unsigned long long>(explanation.total()));
  return success();
}

Outcome<std::uint64_t> parse_host(std::string const& text) {
  std::uint64_t host = 0;
  auto const parsed = std::from_chars(text.data(), text.data() + text.size(), host, 16);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() || host == 0) {
    return failure(Errc::bad_request, "'" + text +
                                          "' is not a host id (16 hex digits): "
                                          "'pstorage list-services --all --json' shows them");
  }
  return host;
}

Outcome<void> ask_to_stop(Cli& cli, std::string const& kind, std::vector<std::string> const& ids) {
  proto::Mds_request request;
  auto& question = *request.mutable_ok_to_stop();
  for (auto const& text : ids) {
    if (kind == "host") {
      PS_TRY(auto const host, parse_host(text));
      question.add_hosts(host);
    } else if (kind == "cs") {
      PS_TRY(auto const id, parse_id(text, "CS#"));
      question.add_servers(id);
    } else {
      PS_TRY(auto const id, parse_id(text, "MDS#"));
      question.add_mds(id);
    }
  }
  PS_TRY(auto const reply, cli.call(std::move(request)));
  auto const& advice = reply.stop_advice();
  if (cli.is_json()) {
    print_json(to_json(advice));
  } else {
    std::printf("%s: %s\n", advice.ok() ? "yes" : "no", advice.reason().c_str());
    for (auto const& path : advice.paths()) std::printf("  %s\n", path.c_str());
  }
  if (advice.ok()) return success();
  return failure(Errc::refused,
                 "do not stop " + std::string(ids.size() == 1 ? "it" : "them") + " now");
}

void add_release(Cli& cli) {
  auto const options = std::make_shared<Release_options>();
  auto* const command =
      cli.add_command("rm-cs", "Removes chunk servers: their replicas are moved first",
                      [&cli, options] { return release_servers(cli, *options); });
  command->add_option("ID", options->ids, "Ids of chunk servers")->required();
  command->add_flag("--wait", options->waits, "Return when they are gone; shows progress");
  auto* const force =
      command->add_flag("--force", options->is_forced,
                        "They are dead: drop them at once, with data that is nowhere else");
  command->add_flag("--cancel", options->cancels, "They stay, if they are not gone yet")
      ->excludes(force);
}

}  // namespace

void add_healing_commands(Cli& cli) {
  add_release(cli);
  auto const what = std::make_shared<std::string>();
  auto const is_inside = std::make_shared<bool>(false);
  auto* const why =
      cli.add_command("why", "Says why a file or a chunk is not healthy and what happens next",
                      [&cli, what, is_inside] { return explain(cli, *what, *is_inside); });
  why->add_option("PATH|CHUNK", *what, "A file, or the number of a chunk")->required();
  why->add_flag("-p", *is_inside, "PATH is inside the cluster");
  cli.add_json(why);
  auto const kind = std::make_shared<std::string>();
  auto const ids = std::make_shared<std::vector<std::string>>();
  auto* const stop =
      cli.add_command("ok-to-stop", "Says whether services can be stopped without harm",
                      [&cli, kind, ids] { return ask_to_stop(cli, *kind, *ids); });
  stop->add_option("KIND", *kind, "cs, host or mds")
      ->required()
      ->check(CLI::IsMember({"cs", "host", "mds"}));
  stop->add_option("ID", *ids, "All that would be stopped at the same time")->required();
  cli.add_json(stop);
}

}  // namespace pstorage::cli
