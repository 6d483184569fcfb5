// make-cs, configure-cs.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "core/cli/commands.h"
#include "core/cli/daemon.h"
#include "core/cli/service_start.h"
#include "core/config/etc.h"
#include "cs/configure_cs.h"
#include "cs/make_cs.h"

namespace pstorage::cli {
namespace {

void show_progress(std::uint64_t done, std::uint64_t total) {
  std::fprintf(stderr, "\rpreparing the journal: %3u %%%s",
               static_cast<unsigned>(std::min<std::uint64_t>(100, done * 100 / total)),
               done >= total ? "\n" : "");
}

Outcome<void> make_cs(Cli& cli, cs::Make_cs_options options, bool starts) {
  PS_TRY(options.cluster, cli.cluster());
  PS_TRY(options.host, host_id(true));
  options.host_name = host_name();
  options.location = host_location();
  if (options.bootstrap.empty()) options.bootstrap = cli.options().bootstrap;
  if (!cli.options().is_quiet && ::isatty(STDERR_FILENO) != 0) options.progress = show_progress;
  PS_TRY(Cs_id const id, cs::make_cs(options, [&cli](proto::Mds_request request) {
           return cli.call(std::move(request));
         }));
  std::error_code error;
  auto const directory = std::filesystem::absolute(options.directory, error).string();
  PS_CHECK(note_repository(options.cluster, "cs", directory));
  if (!cli.options().is_quiet && starts) std::printf("CS#%u is made.\n", id.value);
  if (starts) return start_service("pstorage-csd");
  if (cli.options().is_quiet) return success();
  std::printf("CS#%u is made. Start it: csd -r %s\n", id.value, options.directory.c_str());
  return success();
}

struct Configure_options {
  cs::Configure_cs_options work;
  std::string add;
  std::string move;
  bool drops = false;
};

Outcome<void> configure_cs(Cli& cli, Configure_options const& options) {
  auto work = options.work;
  int const changes =
      (options.add.empty() ? 0 : 1) + (options.move.empty() ? 0 : 1) + (options.drops ? 1 : 0);
  if (changes != 1) {
    return failure(Errc::bad_request,
                   "give one of -a JPATH (a journal elsewhere), -m JPATH (move it) and -d (back "
                   "into the repository)");
  }
  work.change = options.drops           ? cs::Journal_change::drop
                : !options.move.empty() ? cs::Journal_change::move
                                        : cs::Journal_change::add;
  work.journal_path = options.add + options.move;
  if (!cli.options().is_quiet && ::isatty(STDERR_FILENO) != 0) work.progress = show_progress;
  PS_TRY(auto const identity, cs::configure_cs(work));
  if (cli.options().is_quiet) return success();
  std::printf(
      "The journal of CS#%u is now %s. Start it: csd -r %s\n", identity.cs.value,
      identity.journal.empty() ? (work.directory + "/journal").c_str() : identity.journal.c_str(),
      work.directory.c_str());
  return success();
}

void add_configure(Cli& cli) {
  auto const options = std::make_shared<Configure_options>();
  auto* const command =
      cli.add_command("configure-cs", "Gives a stopped chunk server another place for its journal",
                      [&cli, options] { return configure_cs(cli, *options); });
  command->add_option("-r,--repository", options->work.directory, "Directory of the chunk server")
      ->required();
  command->add_option("-a,--add-journal", options->add,
                      "Journal elsewhere, best on an SSD: a new file, or a directory for it");
  command->add_flag("-d,--drop-journal", options->drops, "Journal back into the repository");
  command->add_option("-m,--move-journal", options->move,
                      "Journal from one place of its own to another");
  command->add_option("-s,--journal-size", options->work.journal_mb,
                      "Journal size in MB, rounded up to a multiple of 64 (default: as before)");
}

}  // namespace

void add_cs_commands(Cli& cli) {
  add_configure(cli);
  auto const options = std::make_shared<cs::Make_cs_options>();
  auto const starts = std::make_shared<bool>(false);
  auto* const make =
      cli.add_command("make-cs", "Makes the repository of a chunk server",
                      [&cli, options, starts] { return make_cs(cli, *options, *starts); });
  make->add_option("-r,--repository", options->directory,
                   "Directory of its own, best a disk of its own; lost+found may be there")
      ->required();
  make->add_option("-a,--address", options->address,
                   "ADDR[:PORT] to listen on (default: where the MDS is reached from, any port)");
  make->add_option("-b,--bootstrap", options->bootstrap,
                   "LIST of metadata servers to use, ADDR[:PORT],... (default: the cluster's)");
  make->add_option("-j,--journal", options->journal_path,
                   "Journal elsewhere, best on an SSD: a new file, or a directory for it");
  make->add_option("-s,--journal-size", options->journal_mb,
                   "Journal size in MB, rounded up to a multiple of 64 (default 256)");
  make->add_option("-t,--tier", options->tier, "Tier, 0 to 3 (default 0)");
  make->add_flag("--start", *starts, "Start it: 'service pstorage-csd start'");
}

}  // namespace pstorage::cli
