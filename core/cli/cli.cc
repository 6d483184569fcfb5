#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "core/cli/commands.h"
#include "core/config/etc.h"
#include "core/nearest.h"

namespace pstorage::cli {

Cli::Cli() : app_(std::make_unique<CLI::App>("Administers a pstorage cluster.", "pstorage")) {
  app_->add_option("-c,--cluster", options_.cluster,
                   "Name of the cluster (default: PSTORAGE_NAME)");
  app_->add_option("-b,--bootstrap", options_.bootstrap,
                   "Metadata servers ADDR[:PORT],... (default: bs.list of the cluster)");
  app_->add_flag("-q,--quiet", options_.is_quiet, "Do not print 'connected to MDS#N'");
  app_->set_version_flag("-v,--version", "pstorage " PSTORAGE_VERSION);
  app_->require_subcommand(1);
  // A command's options may be followed by those of the top: "make-cs -r DIR -c NAME".
  app_->fallthrough();
}

Cli::~Cli() = default;

CLI::App* Cli::add_command(std::string const& name, std::string const& description, Action action,
                           CLI::App* parent) {
  auto* const command =
      (parent == nullptr ? app_.get() : parent)->add_subcommand(name, description);
  command->fallthrough();
  commands_.push_back({command, std::move(action)});
  return command;
}

CLI::App* Cli::add_group(std::string const& name, std::string const& description) {
  auto* const group = app_->add_subcommand(name, description);
  group->require_subcommand(1);
  group->fallthrough();
  return group;
}

void Cli::add_json(CLI::App* command) { command->add_flag("--json", is_json_, "Print JSON"); }

Outcome<std::string> Cli::cluster() const { return cluster_name(options_.cluster); }

Outcome<void> Cli::connect() {
  PS_TRY(auto const name, cluster());
  PS_TRY(caller_, Mds_caller::connect(name, options_.bootstrap));
  return success();
}

Outcome<proto::Mds_reply> Cli::call(proto::Mds_request request) {
  auto reply = ask(std::move(request));
  if (reply.has_value()) greet();
  return reply;
}

Outcome<proto::Mds_reply> Cli::ask(proto::Mds_request request) {
  if (!caller_) PS_CHECK(connect());
  auto reply = caller_->call(std::move(request));
  if (reply.has_value()) mds_ = reply.value().mds();
  return reply;
}

void Cli::greet() {
  if (mds_ == 0 || std::exchange(has_said_connected_, true)) return;
  if (!options_.is_quiet && !is_json_) std::printf("connected to MDS#%u\n", mds_);
}

std::string Cli::meant_by(std::string const& word) const {
  CLI::App const* app = app_.get();
  while (!app->get_subcommands().empty()) app = app->get_subcommands().back();
  std::vector<std::string> names;
  if (word.starts_with('-')) {
    for (auto const* const option : app->get_options()) {
      for (auto const& name : option->get_lnames()) names.push_back("--" + name);
    }
  } else {
    for (auto const* const command : app->get_subcommands([](CLI::App const*) { return true; })) {
      names.push_back(command->get_name());
    }
  }
  return nearest(word, names, (word.size() + 1) / 2);
}

int Cli::run(int argc, char const* const* argv) {
  try {
    app_->parse(argc, argv);
  } catch (CLI::ParseError const& error) {
    if (error.get_exit_code() == 0) return app_->exit(error);  // --help, --version
    auto const unknown = app_->remaining(true);
    std::string const what =
        unknown.empty() ? error.what() : "unknown command or option '" + unknown.front() + "'";
    auto const meant = unknown.empty() ? std::string() : meant_by(unknown.front());
    std::cerr << "pstorage: " << what << (meant.empty() ? "" : ": did you mean '" + meant + "'?")
              << "; try 'pstorage --help'\n";
    return exit_usage;
  }
  for (auto const& command : commands_) {
    if (!command.app->parsed()) continue;
    auto const done = command.action();
    if (done.has_value()) return 0;
    std::cout.flush();
    std::fflush(stdout);
    std::cerr << "pstorage: " << done.error().text << '\n';
    return exit_failure;
  }
  return exit_usage;
}

}  // namespace pstorage::cli
