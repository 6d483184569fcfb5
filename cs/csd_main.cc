// csd(8): the chunk server daemon.
#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <optional>

#include "core/auth/key.h"
#include "core/cli/daemon.h"
#include "core/cli/monitor.h"
#include "core/cli/run_as.h"
#include "core/config/etc.h"
#include "core/disk/atomic_file.h"
#include "core/disk/posix_disk.h"
#include "core/runtime/runtime.h"
#include "cs/chunk_server.h"

namespace {

using namespace pstorage;

struct Options {
  std::string repository;
  std::string address;
  std::string bootstrap;
  std::string log_path;
  std::string level = "info";
  std::string user;
  std::string metrics;
  bool is_background = false;
  bool respawns = false;
  bool encrypt = false;
  int cpu_affinity = -1;
  unsigned busy_poll_us = 0;
};

Log_level level_of(std::string const& name) {
  if (name == "debug") return Log_level::debug;
  if (name == "warn") return Log_level::warn;
  if (name == "error") return Log_level::error;
  return Log_level::info;
}

/// cs.log.level: 1 errors to 4 everything.
Log_level level_from_setting(unsigned level, Log_level as_started) {
  switch (level) {
    case 1:
      return Log_level::error;
    case 2:
      return Log_level::warn;
    case 3:
      return Log_level::info;
    case 4:
      return Log_level::debug;
    default:
      return as_started;
  }
}

/// The address of this host from which `server` is reached: the kernel knows after connecting a
/// datagram socket, without sending anything.
Outcome<std::string> address_towards(Address const& server) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  std::string const port = std::to_string(server.port);
  int const status = ::getaddrinfo(server.host.c_str(), port.c_str(), &hints, &found);
  if (status != 0) {
    return failure(Errc::unavailable, "cannot resolve the metadata server " + server.text() + ": " +
                                          ::gai_strerror(status) + "; give the address with -a");
  }
  std::string text;
  for (addrinfo* one = found; one != nullptr && text.empty(); one = one->ai_next) {
    int const fd = ::socket(one->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    char host[NI_MAXHOST];
    auto* const address = reinterpret_cast<sockaddr*>(&own);
    if (fd >= 0 && ::connect(fd, one->ai_addr, one->ai_addrlen) == 0 &&
        ::getsockname(fd, address, &size) == 0 &&
        ::getnameinfo(address, size, host, sizeof host, nullptr, 0, NI_NUMERICHOST) == 0) {
      text = host;
    }
    if (fd >= 0) ::close(fd);
  }
  ::freeaddrinfo(found);
  if (!text.empty()) return text;
  return failure(Errc::unavailable, "no route to the metadata server " + server.text() +
                                        "; give the address to listen on with -a");
}

Outcome<Address> tcp_address(Options const& options, cs::Repository_identity const& identity,
                             std::vector<Address> const& servers) {
  std::string const& given = options.address.empty() ? identity.address : options.address;
  if (!given.empty()) return Address::parse(given, 0);
  for (Address const& server : servers) {
    if (server.is_unix()) continue;
    PS_TRY(auto host, address_towards(server));
    return Address{.host = std::move(host), .port = 0, .unix_path = {}};
  }
  return Address{.host = "127.0.0.1", .port = 0, .unix_path = {}};
}

/// For clients on this host. The path must fit a socket address: long ones go to /run.
Address unix_address(std::string const& directory, cs::Repository_identity const& identity) {
  constexpr std::size_t path_max = sizeof(sockaddr_un::sun_path) - 1;
  std::string path = directory + "/csd.sock";
  if (path.size() > path_max) path = "/run/pstorage-csd-" + identity.uuid.substr(0, 16) + ".sock";
  return {.host = {}, .port = 0, .unix_path = std::move(path)};
}

/// Listens on TCP and on the unix socket; the latter is an accelerator and may fail.
Outcome<std::vector<Address>> listen(Network& network, cs::Chunk_server& server, Address const& tcp,
                                     Address const& local, Log& log) {
  std::vector<Address> addresses;
  PS_TRY(auto const bound, network.listen(tcp, server));
  addresses.push_back(bound);
  auto const unix_bound = network.listen(local, server);
  if (unix_bound.has_value()) {
    addresses.push_back(unix_bound.value());
  } else {
    log.warn("no unix socket: clients of this host will use TCP",
             {{"reason", unix_bound.error().text}});
  }
  return addresses;
}

struct Journal_place {
  std::unique_ptr<Disk> disk;  // null: the repository's
  std::string name = "journal";
};

Outcome<Journal_place> journal_place(Runtime& runtime, cs::Repository_identity const& identity) {
  Journal_place place;
  if (identity.journal.empty()) return place;
  std::filesystem::path const path = identity.journal;
  auto disk = runtime.open_disk(path.parent_path().string());
  if (disk.has_error()) {
    return failure(disk.error().code,
                   "the journal " + identity.journal + " cannot be reached: " + disk.error().text);
  }
  place.disk = std::move(disk).value();
  place.name = path.filename().string();
  return place;
}

Runtime_options runtime_options(Options const& options, cs::Repository_identity const& identity,
                                Cluster_key const& key, Host_id host) {
  Runtime_options made;
  made.identity.role = Role::cs;
  made.identity.name = "CS#" + std::to_string(identity.cs.value) + "@" + cli::host_name();
  made.identity.host = host;
  made.identity.cluster = identity.cluster;
  made.identity.cluster_uuid = identity.cluster_uuid;
  made.identity.key = key;
  made.identity.encryption = options.encrypt;
  made.cpu_affinity = options.cpu_affinity;
  made.busy_poll_us = options.busy_poll_us;
  made.shared_payload_bytes = daemon_shared_payload_bytes;
  return made;
}

Outcome<cs::Repository_identity> load_identity(std::string const& directory) {
  // Nothing asynchronous is asked of this disk, so nothing is ever posted.
  Io_pool pool;
  PS_TRY(auto const disk, open_posix_disk(directory, pool, [](std::function<void()>) {}));
  return cs::load_identity(*disk);
}

/// The metadata servers that this daemon has learned of, where it may not write to bs.list.
std::string own_list(Options const& options) { return options.repository + "/bs.list"; }

/// All that are known: as given, and what the host and this daemon have learned since make-cs (the
/// servers named then may be gone).
Outcome<std::vector<Address>> known_servers(Options const& options,
                                            cs::Repository_identity const& identity) {
  std::string const& list = options.bootstrap.empty() ? identity.bootstrap : options.bootstrap;
  PS_TRY(auto servers, bootstrap_list(identity.cluster, list));
  for (auto const& learned :
       {bootstrap_list(identity.cluster, ""), load_server_list(own_list(options))}) {
    if (!learned.has_value()) continue;
    for (auto const& server : learned.value())
      if (std::find(servers.begin(), servers.end(), server) == servers.end())
        servers.push_back(server);
  }
  return servers;
}

cs::Chunk_server_options server_options(Options const& options,
                                        cs::Repository_identity const& identity, Host_id host,
                                        std::vector<Address> const& servers, Leveled_log& log) {
  cs::Chunk_server_options made;
  made.identity = identity;
  made.host = host;
  made.host_name = cli::host_name();
  made.location = host_location();
  made.mds_servers = servers;
  made.on_mds_servers = [&options, cluster = identity.cluster,
                         &log](std::vector<Address> const& all) {
    // Who runs as a user of its own may not write to /etc/pstorage.
    auto const saved = ::geteuid() == 0 ? save_bootstrap_list(cluster, all)
                                        : save_server_list(own_list(options), all);
    if (!saved.has_value())
      log.warn("cannot note the metadata servers", {{"reason", saved.error().text}});
  };
  made.encrypted = options.encrypt;
  made.set_log_level = [as_started = level_of(options.level), &log](unsigned level) {
    log.set_level(level_from_setting(level, as_started));
  };
  return made;
}

Outcome<std::unique_ptr<cli::Monitor>> start_monitor(Options const& options, Runtime& runtime,
                                                     cs::Chunk_server& server) {
  cli::Monitor_options monitor;
  monitor.given = options.metrics;
  monitor.preferred = Address{.host = "127.0.0.1", .port = 0, .unix_path = {}};
  monitor.note_path = options.repository + "/metrics.address";
  monitor.daemon = "csd";
  return cli::Monitor::start(runtime, std::move(monitor),
                             {[&server](Metrics_text& text) { server.collect(text); },
                              [&server] { return server.trouble(); }, nullptr});
}

/// Serves until it is told to stop.
Outcome<void> serve(Options const& options, Leveled_log& log, cli::Daemon_start& start) {
  PS_TRY(auto const identity, load_identity(options.repository));
  PS_TRY(auto const lock, cli::File_lock::acquire(options.repository + "/lock"));
  PS_TRY(auto const key, load_key(key_path(identity.cluster)));
  PS_TRY(auto const host, host_id(true));
  PS_TRY(auto const servers, known_servers(options, identity));
  PS_TRY(auto const tcp, tcp_address(options, identity, servers));
  if (!options.user.empty()) {
    std::vector<std::string> own = {options.repository};
    if (!identity.journal.empty()) own.push_back(identity.journal);
    PS_CHECK(cli::run_as(options.user, own));
  }
  Runtime runtime(runtime_options(options, identity, key, host), log);
  PS_TRY(auto const disk, runtime.open_disk(options.repository));
  PS_TRY(auto const journal, journal_place(runtime, identity));

  auto settings = server_options(options, identity, host, servers, log);
  settings.store.journal_name = journal.name;
  settings.executor = &runtime.executor();
  std::optional<Failure> dropped;
  settings.on_dropped = [&](Failure const& why) {
    dropped = why;
    runtime.stop();
  };
  cs::Chunk_server server(runtime.clock(), runtime.network(), *disk,
                          journal.disk ? *journal.disk : *disk, runtime.random(), log, settings);
  PS_CHECK(server.start());
  Address const local = unix_address(options.repository, identity);
  PS_TRY(auto const addresses, listen(runtime.network(), server, tcp, local, log));
  runtime.network().set_turn_hook(&server);
  runtime.add_ticker(server);
  bool clean = true;
  runtime.set_stop_handler([&] {
    log.info("stopping");
    server.stop([&](Errc done) {
      clean = done == Errc::ok;
      runtime.stop();
    });
  });
  cli::Pid_file const pid_file(options.repository + "/csd.pid");
  server.serve(addresses);
  PS_TRY(auto const monitor, start_monitor(options, runtime, server));
  log.info(
      "chunk server is ready",
      {{"cluster", identity.cluster}, {"cs", identity.cs}, {"address", addresses.front().text()}});
  start.ready();
  runtime.run();
  runtime.remove_ticker(server);
  runtime.network().set_turn_hook(nullptr);
  if (dropped) return *dropped;
  if (clean) return success();
  return failure(
      Errc::io_error,
      "the repository could not be made clean; the next start recovers from the journal");
}

int run(Options options) {
  std::error_code error;
  options.repository = std::filesystem::absolute(options.repository, error).string();
  cli::Daemon_start start(options.is_background,
                          options.respawns ? options.repository + "/csd.keeper" : "");
  auto const fail = [&start](Failure const& why) {
    start.failed("csd", why.text);
    return 1;
  };
  if (!std::filesystem::exists(options.repository + "/" + cs::identity_name, error)) {
    return fail(failure(Errc::not_found, options.repository +
                                             " is not a chunk server's repository; make one with: "
                                             "pstorage -c NAME make-cs -r DIR"));
  }
  auto const log_path = cli::log_path(options.log_path, options.repository, options.is_background);
  if (!log_path.has_value()) return fail(log_path.error());
  auto const log = make_log(log_path.value(), level_of(options.level));
  if (!log.has_value()) return fail(log.error());
  auto const served = serve(options, *log.value(), start);
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
  CLI::App app("A chunk server of a pstorage cluster.", "csd");
  app.add_option("-r,--repository", options.repository, "Repository made by 'pstorage make-cs'")
      ->required();
  app.add_option("-a,--address", options.address,
                 "ADDR[:PORT] to listen on (default: as given to make-cs)");
  app.add_option("-b,--bootstrap", options.bootstrap,
                 "LIST of metadata servers, ADDR[:PORT],... (default: as given to make-cs)");
  app.add_option("-l,--log", options.log_path,
                 "Log file (default: standard error; with -D: DIR/logs/log)");
  app.add_option("-d,--log-level", options.level, "debug, info, warn or error")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}));
  app.add_flag("-D,--daemon", options.is_background, "Run in the background");
  app.add_option("--metrics", options.metrics,
                 "ADDR[:PORT] for metrics over HTTP, or off (default: 127.0.0.1, any port)");
  app.add_flag("--respawn", options.respawns, "With -D: start again after a failure");
  app.add_option("-u,--user", options.user, "Give the repository to this user and run as it");
  app.add_flag("--encrypt", options.encrypt, "Encrypt the traffic of this chunk server");
  app.add_option("--cpu-affinity", options.cpu_affinity, "Run on this CPU only")
      ->check(CLI::Range(0, 1023));
  app.add_option("--busy-poll-us", options.busy_poll_us, "Spin this long before sleeping")
      ->check(CLI::Range(0u, 1000000u));
  app.set_version_flag("-v,--version", "csd " PSTORAGE_VERSION);
  try {
    app.parse(argc, argv);
  } catch (CLI::ParseError const& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::cerr << "csd: " << error.what() << "; try 'csd --help'\n";
    return 2;
  }
  return run(std::move(options));
}
