// mdsd(8): the metadata server daemon.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <optional>

#include "core/auth/key.h"
#include "core/cli/daemon.h"
#include "core/cli/monitor.h"
#include "core/cli/run_as.h"
#include "core/config/etc.h"
#include "core/disk/atomic_file.h"
#include "core/net/mdns_responder.h"
#include "core/runtime/implementation.h"
#include "core/runtime/runtime.h"
#include "mds/monitoring.h"
#include "mds/raft/database_snapshot.h"
#include "mds/raft/raft_node.h"
#include "mds/repository.h"
#include "mds/server/metadata_server.h"
#include "mds/status_page.h"

namespace {

using namespace pstorage;

struct Options {
  std::string repository;
  std::string log_path;
  std::string level = "info";
  std::string user;
  std::string metrics;
  std::string page = "password";
  bool is_background = false;
  bool respawns = false;
  bool mdns = false;
  int cpu_affinity = -1;
  unsigned busy_poll_us = 0;
};

Log_level level_of(std::string const& name) {
  if (name == "debug") return Log_level::debug;
  if (name == "warn") return Log_level::warn;
  if (name == "error") return Log_level::error;
  return Log_level::info;
}

/// net.encryption as the database has it; the setting must be known before the first connection.
bool stored_encryption(std::string const& path) {
  if (::access(path.c_str(), F_OK) != 0) return false;
  auto machine = mds::State_machine::open(path);
  return machine.has_value() &&
         machine.value()->database().number(
             "SELECT value FROM config WHERE name = 'net.encryption'", 0) != 0;
}

mds::Metadata_server_options server_options(mds::Repository const& repository,
                                            std::string const& directory, Host_id host) {
  mds::Metadata_server_options options;
  options.cluster = repository.cluster;
  options.cluster_uuid = repository.cluster_uuid;
  options.id = repository.id;
  options.address = repository.address.text();
  options.host = host;
  options.host_name = cli::host_name();
  options.database_path = directory + "/mds.db";
  options.memory_bytes = cli::resident_bytes;
  options.cpu_us = cli::processor_us;
  return options;
}

mds::raft::Raft_node_options log_options(mds::Repository const& repository) {
  mds::raft::Raft_node_options options;
  options.cluster_uuid = repository.cluster_uuid;
  options.listen = repository.address;
  options.log.member = {mds::member_id(repository)};
  options.log.must_exist = repository.has_started;
  if (repository.is_first) {
    options.log.first.add(
        {options.log.member, mds::raft::Member_kind::voter, repository.address.text()});
  }
  return options;
}

/// Ends the loop once another server leads, or after a second: whoever stops on purpose does not
/// leave the cluster without a master until it is missed.
class Stopper final : public Ticker {
 public:
  Stopper(Runtime& runtime, mds::Replicated_log& entries) : runtime_(runtime), entries_(entries) {}
  void begin(bool hands_over) {
    if (!hands_over) return runtime_.stop();
    if (!until_) until_ = runtime_.clock().now() + std::chrono::seconds(1);
  }
  void on_tick() override {
    if (until_ && (!entries_.is_leader() || runtime_.clock().now() >= *until_)) runtime_.stop();
  }

 private:
  Runtime& runtime_;
  mds::Replicated_log& entries_;
  std::optional<Time_point> until_;
};

/// /metrics, /healthz and the status page.
class Monitoring {
 public:
  Monitoring(Options const& options, mds::Repository const& repository, Runtime& runtime,
             mds::Metadata_server& server, mds::raft::Raft_node const& entries,
             Cluster_key const& key)
      : server_(server),
        entries_(entries),
        page_(runtime, server, key,
              options.page == "off"    ? mds::Page_access::off
              : options.page == "open" ? mds::Page_access::open
                                       : mds::Page_access::password,
              is_loopback(options)) {
    settings_.given = options.metrics;
    // A port that one can know without looking; where the MDS itself has another than the usual
    // one, what is beside it may be another MDS's.
    bool const is_usual = repository.address.port == mds_port_default;
    settings_.preferred = Address{
        .host = "127.0.0.1", .port = is_usual ? page_port : std::uint16_t{0}, .unix_path = {}};
    settings_.note_path = options.repository + "/metrics.address";
    settings_.daemon = "mdsd";
  }

  Outcome<void> start(Runtime& runtime) {
    cli::Monitor::Sources sources;
    sources.metrics = [this](Metrics_text& text) {
      mds::collect(text, entries_, entries_.commit_times(), page_.status());
    };
    sources.trouble = [this] { return server_.trouble(); };
    sources.pages = [this](http::Request const& request, http::Respond respond) {
      page_.answer(request, std::move(respond));
    };
    PS_TRY(monitor_, cli::Monitor::start(runtime, settings_, std::move(sources)));
    return success();
  }

 private:
  static bool is_loopback(Options const& options) {
    auto const given = Address::parse(options.metrics, 0);
    return options.metrics.empty() || (given.has_value() && http::is_loopback(given.value().host));
  }

  static constexpr std::uint16_t page_port = mds_port_default + 2;

  mds::Metadata_server& server_;
  mds::raft::Raft_node const& entries_;
  mds::Status_page page_;
  cli::Monitor_options settings_;
  std::unique_ptr<cli::Monitor> monitor_;
};

/// Serves until it is told to stop.
Outcome<void> serve(Options const& options, mds::Repository const& repository, Log& log,
                    cli::Daemon_start& start) {
  auto const& directory = options.repository;
  PS_TRY(auto const key, load_key(key_path(repository.cluster)));
  PS_TRY(auto const host, host_id(true));
  if (!options.user.empty()) PS_CHECK(cli::run_as(options.user, {directory}));
  Runtime_options runtime_options;
  auto& identity = runtime_options.identity;
  identity.role = Role::mds;
  identity.name = "MDS#" + std::to_string(repository.id.value) + "@" + cli::host_name();
  identity.host = host;
  identity.cluster = repository.cluster;
  identity.cluster_uuid = repository.cluster_uuid;
  identity.key = key;
  identity.encryption = stored_encryption(directory + "/mds.db");
  runtime_options.cpu_affinity = options.cpu_affinity;
  runtime_options.busy_poll_us = options.busy_poll_us;
  Runtime runtime(runtime_options, log);
  PS_TRY(auto const disk, runtime.open_disk(directory));

  auto server_settings = server_options(repository, directory, host);
  Outcome<void> result = success();
  server_settings.on_fatal = [&](Failure const& why) {
    result = why;
    runtime.stop();
  };
  server_settings.off_loop = [&runtime](std::function<void()> work, std::function<void()> done) {
    runtime.run_off_loop(std::move(work), std::move(done));
  };
  server_settings.next_turn = [&runtime](std::function<void()> work) {
    runtime.post(std::move(work));
  };
  mds::Metadata_server* state = nullptr;  // once it is there
  mds::raft::Database_snapshot_source source(*disk, directory, "mds.db", log);
  mds::raft::File_snapshot_sink sink(
      *disk, "mds.db", {"mds.db-wal", "mds.db-shm"},
      {[&state] { state->close_state(); }, [&state] { return state->open_state(); }});
  mds::raft::Raft_node entries(runtime.clock(), runtime.network(), *disk, runtime.random(), log,
                               log_options(repository), &source, &sink);
  mds::Metadata_server server(runtime.clock(), runtime.network(), *disk, runtime.random(), log,
                              entries, std::move(server_settings));
  state = &server;
  PS_CHECK(server.start());
  if (!repository.has_started) PS_CHECK(mds::mark_started(directory, repository));
  auto listen_at = repository.address;
  ++listen_at.port;
  PS_TRY(auto const address, runtime.network().listen(listen_at, server));
  runtime.network().set_turn_hook(&server);
  Stopper stopper(runtime, entries);
  Ticker* const tickers[] = {&entries, &source, &server, &stopper};
  for (auto* const ticker : tickers) runtime.add_ticker(*ticker);
  runtime.set_stop_handler([&] {
    log.info("stopping");
    stopper.begin(server.hand_over());
  });
  Monitoring monitoring(options, repository, runtime, server, entries, key);
  PS_CHECK(monitoring.start(runtime));
  Mdns_responder responder(runtime.implementation().loop(), runtime.clock(),
                           {repository.cluster, repository.address});
  if (options.mdns) {
    PS_CHECK(responder.start());
    runtime.add_ticker(responder);
  }
  cli::Pid_file const pid_file(directory + "/mdsd.pid");
  log.info("metadata server is ready",
           {{"cluster", repository.cluster}, {"mds", repository.id}, {"clients", address.text()}});
  start.ready();
  runtime.run();
  for (auto* const ticker : tickers) runtime.remove_ticker(*ticker);
  if (options.mdns) runtime.remove_ticker(responder);
  runtime.network().set_turn_hook(nullptr);
  if (!result.has_value()) return result;
  return server.shut_down();
}

int run(Options options) {
  cli::Daemon_start start(options.is_background,
                          options.respawns ? options.repository + "/mdsd.keeper" : "");
  auto const fail = [&start](Failure const& why) {
    start.failed("mdsd", why.text);
    return 1;
  };
  auto const repository = mds::load_repository(options.repository);
  if (!repository.has_value()) return fail(repository.error());
  auto const lock = cli::File_lock::acquire(options.repository + "/lock");
  if (!lock.has_value()) return fail(lock.error());
  auto const log_path = cli::log_path(options.log_path, options.repository, options.is_background);
  if (!log_path.has_value()) return fail(log_path.error());
  auto const log = make_log(log_path.value(), level_of(options.level));
  if (!log.has_value()) return fail(log.error());
  auto const served = serve(options, repository.value(), *log.value(), start);
  if (served.has_value()) {
    log.value()->info("stopped");
    return 0;
  }
  if (!log_path.value().empty()) log.value()->error(served.error().text);
  return fail(served.error());
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("The metadata server of a pstorage cluster.", "mdsd");
  app.add_option("-r,--repository", options.repository, "Repository made by 'pstorage make-mds'")
      ->required();
  app.add_option("-l,--log", options.log_path,
                 "Log file (default: standard error; with -D: DIR/logs/log)");
  app.add_option("-d,--log-level", options.level, "debug, info, warn or error")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}));
  app.add_flag("-D,--daemon", options.is_background, "Run in the background");
  app.add_option("--metrics", options.metrics,
                 "ADDR[:PORT] for metrics and the status page over HTTP, or off (default: "
                 "127.0.0.1:2512, another port if the MDS has not port 2510)");
  app.add_option("--status-page", options.page,
                 "password (default: that of the cluster), open or off")
      ->check(CLI::IsMember({"password", "open", "off"}));
  app.add_flag("--mdns", options.mdns,
               "Answer hosts of the local network that look for the cluster by mDNS");
  app.add_flag("--respawn", options.respawns, "With -D: start again after a failure");
  app.add_option("-u,--user", options.user, "Give the repository to this user and run as it");
  app.add_option("--cpu-affinity", options.cpu_affinity, "Run on this CPU only");
  app.add_option("--busy-poll-us", options.busy_poll_us, "Spin this long before sleeping");
  app.set_version_flag("-v,--version", "mdsd " PSTORAGE_VERSION);
  try {
    app.parse(argc, argv);
  } catch (CLI::ParseError const& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::cerr << "mdsd: " << error.what() << "; try 'mdsd --help'\n";
    return 2;
  }
  return run(std::move(options));
}
