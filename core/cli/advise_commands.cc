// advise-configuration.
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "core/cli/advice.h"
#include "core/cli/commands.h"
#include "core/cli/output.h"

namespace pstorage::cli {
namespace {

struct Advise_options {
  bool has_journals = false;  // always: there is nothing else to advise yet
  std::vector<std::string> servers;
  std::string ssd;
  std::string mount_point;
  bool applies = false;
};

/// Runs the programs of the folder that this one is in, or else of the PATH.
Outcome<void> run_command(std::vector<std::string> words) {
  auto const shown = shell_text(words);
  std::error_code error;
  auto const beside =
      std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / words[0];
  if (!error && std::filesystem::exists(beside, error)) words[0] = beside.string();
  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  auto const child = ::fork();
  if (child < 0) return failure(std::error_code(errno, std::generic_category()), "cannot fork");
  if (child == 0) {
    ::execvp(arguments[0], arguments.data());
    std::fprintf(stderr, "cannot run %s\n", arguments[0]);
    ::_exit(127);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return success();
  return failure(Errc::refused, "'" + shown +
                                    "' failed: those before it are done, those behind it "
                                    "are not");
}

Outcome<void> advise_configuration(Cli& cli, Advise_options const& options) {
  Advice_question question;
  PS_TRY(question.cluster, cli.cluster());
  std::error_code error;
  for (auto const& directory : options.servers) {
    auto const path = std::filesystem::absolute(directory, error).string();
    question.servers.push_back({path, std::filesystem::exists(path + "/repository.json", error)});
  }
  question.ssd = std::filesystem::absolute(options.ssd, error).string();
  auto const space = std::filesystem::space(question.ssd, error);
  if (error) return failure(error, options.ssd + ": " + error.message());
  question.ssd_free_bytes = space.available;
  question.mount_point = options.mount_point;
  PS_TRY(auto const advice, advise(question));
  auto shown = nlohmann::json::array();
  for (auto const& command : advice.commands) shown.push_back(shell_text(command));
  if (cli.is_json()) {
    print_json({{"journal_mb", advice.journal_mb}, {"commands", shown}});
  } else {
    for (auto const& command : advice.commands) std::printf("%s\n", shell_text(command).c_str());
    std::fflush(stdout);
  }
  if (!options.applies) return success();
  for (auto const& command : advice.commands) PS_CHECK(run_command(command));
  return success();
}

}  // namespace

void add_advise_commands(Cli& cli) {
  auto const options = std::make_shared<Advise_options>();
  auto* const command =
      cli.add_command("advise-configuration", "Says how to share an SSD between journals",
                      [&cli, options] { return advise_configuration(cli, *options); });
  command->add_flag("-w,--write-journal", options->has_journals, "Journals of chunk servers on it")
      ->required();
  command->add_option("--cs", options->servers, "Repositories, made or to be made")
      ->required()
      ->expected(1, 64);
  command->add_option("--ssd", options->ssd, "Directory on the SSD")
      ->required()
      ->check(CLI::ExistingDirectory);
  command->add_option("-m,--mount", options->mount_point,
                      "Also mount the cluster there on this host");
  command->add_flag("--apply", options->applies, "Also run the commands");
  cli.add_json(command);
}

}  // namespace pstorage::cli
