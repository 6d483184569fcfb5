// make-cs.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "core/cli/commands.h"
#include "core/cli/daemon.h"
#include "core/config/etc.h"
#include "cs/make_cs.h"

namespace pstorage::cli {
namespace {

void show_progress(std::uint64_t done, std::uint64_t total) {
  std::fprintf(stderr, "\rpreparing the journal: %3u %%%s",
               static_cast<unsigned>(std::min<std::uint64_t>(100, done * 100 / total)),
               done >= total ? "\n" : "");
}

Outcome<void> make_cs(Cli& cli, cs::Make_cs_options options) {
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
  if (cli.options().is_quiet) return success();
  std::printf("CS#%u is made. Start it: csd -r %s\n", id.value, options.directory.c_str());
  return success();
}

}  // namespace

void add_cs_commands(Cli& cli) {
  auto const options = std::make_shared<cs::Make_cs_options>();
  auto* const make = cli.add_command("make-cs", "Makes the repository of a chunk server",
                                     [&cli, options] { return make_cs(cli, *options); });
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
}

}  // namespace pstorage::cli
