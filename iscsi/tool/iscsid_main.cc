// pstorage-iscsid: keeps the targets of a cluster served; one runs on each gateway host.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <optional>

#include "core/cli/daemon.h"
#include "core/cli/output.h"
#include "core/config/etc.h"
#include "core/disk/atomic_file.h"
#include "iscsi/tool/target_watcher.h"

namespace pstorage::iscsi {
namespace {

constexpr char const* program = "pstorage-iscsid";
constexpr int exit_failure = 1;
constexpr int exit_usage = 2;

volatile sig_atomic_t is_stopping = 0;

struct Options {
  Watcher_options watcher;
  std::string log_path;
  bool background = false;
  bool respawns = false;
};

void add_options(CLI::App& app, Options& options) {
  app.add_option("-c,--cluster", options.watcher.cluster,
                 "Name of the cluster (default: PSTORAGE_NAME)");
  app.add_option("-b,--bootstrap", options.watcher.bootstrap, "Metadata servers ADDR[:PORT],...");
  app.add_option("--nbd-socket", options.watcher.nbd_socket,
                 "Unix socket of pstorage-nbd (default: /run/pstorage/CLUSTER/nbd.sock)");
  app.add_option("--modules", options.watcher.modules, "Directory that has only bs_pstorage.so");
  app.add_option("-l,--log", options.log_path, "Log file, besides standard error");
  app.add_flag("-D,--daemon", options.background, "Go to the background once it serves");
  app.add_flag("--respawn", options.respawns, "With -D: start again after a failure");
  app.set_version_flag("-v,--version", "pstorage-iscsid " PSTORAGE_VERSION);
}

/// Where this host's daemon of the cluster has its lock and process ids, without their endings.
std::string file_base(std::string const& cluster) {
  return gateway_paths(cluster, "", "").run + "/iscsid";
}

/// Where the process that starts this daemon again notes itself; empty: none is asked for.
std::string keeper_file(Options const& options) {
  auto const cluster = cluster_name(options.watcher.cluster);
  if (!options.respawns || !cluster.has_value()) return {};
  auto const base = file_base(cluster.value());
  auto const made = make_directories(gateway_paths(cluster.value(), "", "").run);
  return made.has_value() ? base + ".keeper" : "";
}

void watch_signals() {
  struct sigaction action {};
  action.sa_handler = [](int) { is_stopping = 1; };
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);
}

void watch(Target_watcher& watcher, Log& log) {
  bool is_cut_off = false;
  while (is_stopping == 0) {
    auto const looked = watcher.look();
    if (!looked.has_value() && !is_cut_off) {
      log.warn("cannot see the targets; serving what is served", {{"reason", looked.error().text}});
    }
    is_cut_off = !looked.has_value();
    watcher.pause();
  }
  watcher.leave();
}

Outcome<void> serve(Options options, cli::Daemon_start& start) {
  PS_TRY(options.watcher.cluster, cluster_name(options.watcher.cluster));
  PS_TRY(auto const host, host_id(true));
  PS_CHECK(make_directories(gateway_paths(options.watcher.cluster, "", "").run));
  auto const base = file_base(options.watcher.cluster);
  PS_TRY(auto const lock, cli::File_lock::acquire(base + ".lock"));
  cli::Pid_file const pid_file(base + ".pid");
  PS_TRY(auto const log, make_log(options.log_path, Log_level::info));
  PS_TRY(auto const session,
         volume::Tool_session::connect(options.watcher.cluster, options.watcher.bootstrap));
  Target_watcher watcher(options.watcher, cli::hex_text(host.value), *session, *log);
  PS_CHECK(watcher.look());
  watch_signals();
  start.ready();
  watch(watcher, *log);
  return success();
}

int run(int count, char** arguments) {
  CLI::App app("Keeps the iSCSI targets of a cluster served by its gateways.");
  Options options;
  add_options(app, options);
  try {
    app.parse(count, arguments);
  } catch (CLI::ParseError const& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::fprintf(stderr, "%s: %s; try '%s --help'\n", program, error.what(), program);
    return exit_usage;
  }
  cli::Daemon_start start(options.background, keeper_file(options));
  auto const served = serve(std::move(options), start);
  if (served.has_value()) return 0;
  start.failed(program, served.error().text);
  return exit_failure;
}

}  // namespace
}  // namespace pstorage::iscsi

int main(int count, char** arguments) { return pstorage::iscsi::run(count, arguments); }
