// pstorage-nbd: serves the volumes of a cluster over NBD.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "blockdev/cluster_provider.h"
#include "blockdev/nbd_server.h"
#include "core/cli/daemon.h"
#include "core/cli/monitor.h"
#include "core/config/etc.h"
#include "core/disk/atomic_file.h"

namespace pstorage::nbd {
namespace {

constexpr std::uint16_t nbd_port = 10809;  // IANA
// A stop waits this long for the cluster to take the last flushes.
constexpr Duration stop_patience = std::chrono::seconds(20);

struct Options {
  std::string cluster;
  std::string socket;
  std::string address;
  std::string servers;
  std::vector<std::string> volumes;
  std::string log_path;
  std::string log_level = "info";
  bool background = false;
  bool respawns = false;
  bool encrypt = false;
  int cpu_affinity = -1;
  unsigned busy_poll_us = 0;
  unsigned wait_seconds = 12;
  std::string metrics;
  Tls_options tls;
  std::vector<std::string> allow;
  std::size_t connections_max = Server_options().connections_max;
};

void add_options(CLI::App& app, Options& options) {
  app.add_option("-c,--cluster", options.cluster, "Cluster name (or PSTORAGE_NAME)");
  app.add_option("-U,--unix", options.socket,
                 "Unix socket to serve (default: /run/pstorage/CLUSTER/nbd.sock when there is "
                 "no -a)");
  app.add_option("-a,--address", options.address, "ADDR[:PORT] to serve over TCP, port 10809");
  app.add_option("-b,--bootstrap", options.servers, "Metadata servers, ADDR[:PORT],...");
  app.add_option("VOLUME", options.volumes,
                 "Export only these and keep them open (default: all volumes, each open while "
                 "a client uses it)");
  app.add_option("-l,--log", options.log_path, "Log file, besides standard error");
  app.add_option("-d,--debug-level", options.log_level, "debug, info, warn or error")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}));
  app.add_flag("-D,--daemon", options.background, "Go into the background once serving");
  app.add_flag("--respawn", options.respawns, "With -D: start again after a failure");
  app.add_flag("--encrypt", options.encrypt, "Encrypt the traffic with the cluster");
  app.add_option("--metrics", options.metrics,
                 "ADDR[:PORT] for metrics over HTTP, or off (default: 127.0.0.1, any port)");
  app.add_option("--wait", options.wait_seconds,
                 "Seconds to wait for a volume in use or a cluster that does not answer")
      ->check(CLI::Range(0u, 3600u));
  app.add_option("--cpu-affinity", options.cpu_affinity, "Run on this CPU only")
      ->check(CLI::Range(0, 1023));
  app.add_option("--busy-poll-us", options.busy_poll_us, "Spin this long before sleeping")
      ->check(CLI::Range(0u, 1000000u));
  app.add_option("--tls-certificates", options.tls.certificates,
                 "Directory with server-cert.pem, server-key.pem and, to ask clients for theirs, "
                 "ca-cert.pem: offers TLS");
  app.add_option("--tls-psk", options.tls.psk_file,
                 "File of lines USER:HEX, as psktool writes it: offers TLS with these keys");
  app.add_flag("--tls-required", options.tls.is_required, "Serve TCP clients over TLS only");
  app.add_option("--allow", options.allow,
                 "Serve only TCP clients from these: 192.168.0.0/24,fd00::/8,...")
      ->delimiter(',');
  app.add_option("--max-connections", options.connections_max, "Clients at a time")
      ->check(CLI::Range(std::size_t{1}, std::size_t{100000}))
      ->capture_default_str();
  app.set_version_flag("-v,--version", std::string("pstorage-nbd ") + PSTORAGE_VERSION);
}

Log_level level_of(std::string const& name) {
  if (name == "debug") return Log_level::debug;
  if (name == "warn") return Log_level::warn;
  return name == "error" ? Log_level::error : Log_level::info;
}

/// Listening sockets that systemd has opened for this process: descriptors 3, 4, ...
int inherited_sockets() {
  auto const number = [](char const* name) {
    auto const* const text = std::getenv(name);
    return text == nullptr ? 0L : std::strtol(text, nullptr, 10);
  };
  return number("LISTEN_PID") == ::getpid() ? static_cast<int>(number("LISTEN_FDS")) : 0;
}

/// Where the servers of a cluster on this host keep their socket and process ids.
std::string run_directory(std::string const& cluster) { return "/run/pstorage/" + cluster; }

/// Serves at the default socket only: at most one of a cluster on a host, which the service scripts
/// look for.
bool is_the_host_s(Options const& options) {
  return options.socket.empty() && options.address.empty() && inherited_sockets() == 0;
}

/// Where to serve; makes the directory of the default socket.
Outcome<std::vector<Address>> addresses_of(Options const& options) {
  std::vector<Address> addresses;
  if (!options.address.empty()) {
    PS_TRY(auto address, Address::parse(options.address, nbd_port));
    addresses.push_back(std::move(address));
  }
  std::string socket = options.socket;
  if (is_the_host_s(options)) {
    PS_CHECK(make_directories(run_directory(options.cluster)));
    socket = run_directory(options.cluster) + "/nbd.sock";
  }
  if (!socket.empty()) {
    PS_TRY(auto address, Address::parse("unix:" + socket, 0));
    addresses.push_back(std::move(address));
  }
  return addresses;
}

Outcome<Server_options> server_options(Options const& options) {
  Server_options result;
  result.volumes = options.volumes;
  result.connections_max = options.connections_max;
  result.requires_tls = options.tls.is_required;
  for (auto const& network : options.allow) PS_CHECK(result.allow.add(network));
  bool const has_tls = !options.tls.certificates.empty() || !options.tls.psk_file.empty();
  if (options.tls.is_required && !has_tls)
    return failure(Errc::bad_request, "--tls-required needs --tls-certificates or --tls-psk");
  if (!has_tls) return result;
  PS_TRY(result.tls, Tls_settings::load(options.tls));
  return result;
}

class Service {
 public:
  Service(Options const& options, Runtime& runtime, client::Cluster_options cluster,
          Server_options server)
      : runtime_(runtime),
        cluster_(runtime.clock(), runtime.network(), runtime.random(), runtime.log(),
                 runtime.executor(), std::move(cluster)),
        opener_(cluster_, runtime.executor(), runtime.clock(), runtime.log()),
        provider_(cluster_, opener_, runtime.executor(),
                  std::chrono::seconds(options.wait_seconds)),
        server_(runtime, provider_, std::move(server)) {
    runtime_.add_ticker(cluster_);
    runtime_.add_ticker(opener_);
  }
  ~Service() {
    runtime_.remove_ticker(opener_);
    runtime_.remove_ticker(cluster_);
  }
  Service(Service const&) = delete;
  Service& operator=(Service const&) = delete;

  std::string trouble() const { return server_.trouble(); }
  /// For /metrics: by volume, and by chunk server as this client sees them.
  void collect(Metrics_text& text) const {
    server_.collect(text);
    text.gauge("pstorage_client_cs_up", "1: there is a connection to this chunk server.");
    cluster_.visit_links([&text](client::Cs_link const& link) {
      text.add({{"cs", std::to_string(link.id().value)}}, link.is_up() ? 1 : 0);
    });
    text.histogram("pstorage_client_cs_request_duration_seconds",
                   "From a request to the chunk server's answer, as this client sees it.");
    cluster_.visit_links([&text](client::Cs_link const& link) {
      auto const cs = std::to_string(link.id().value);
      text.add({{"cs", cs}, {"operation", "read"}}, link.reads());
      text.add({{"cs", cs}, {"operation", "write"}}, link.writes());
    });
  }

  /// Runs until a signal, or until it cannot serve.
  Outcome<void> run(std::vector<Address> const& addresses, cli::Daemon_start& start) {
    // Before any lease is taken: an address in use must not cost another server its volumes.
    PS_CHECK(listen(addresses));
    Outcome<void> result = success();
    runtime_.set_stop_handler([this, &result] { stop(result); });
    server_.open_volumes([&](Outcome<void> const& opened) {
      if (opened.has_value()) return start.ready();
      result = opened;
      stop(result);  // gives back those that were opened
    });
    runtime_.run();
    return result;
  }

 private:
  Outcome<void> listen(std::vector<Address> const& addresses) {
    for (auto const& address : addresses) {
      PS_TRY(auto const real, server_.listen(address));
      runtime_.log().info("serving NBD", {{"at", real.text()}});
    }
    static constexpr int first_inherited = 3;  // sd_listen_fds(3)
    for (int i = 0; i < inherited_sockets(); ++i) {
      PS_CHECK(server_.adopt(first_inherited + i));
      runtime_.log().info("serving NBD", {{"at", "a socket of the service manager"}});
    }
    return success();
  }

  void stop(Outcome<void>& result) {
    runtime_.log().info("stopping");
    if (deadline_) return;  // already
    server_.stop([this] { runtime_.stop(); });
    // The cluster may be unable to take the last writes; then the answer is another signal, or
    // this.
    deadline_.emplace(runtime_, [this, &result] {
      if (result.has_value())
        result = failure(Errc::timed_out,
                         "stopped without giving the volumes back: the cluster does not answer");
      runtime_.stop();
    });
  }

  /// Calls once, `stop_patience` from now.
  class Deadline final : public Ticker {
   public:
    Deadline(Runtime& runtime, std::function<void()> over)
        : runtime_(runtime), at_(runtime.clock().now() + stop_patience), over_(std::move(over)) {
      runtime_.add_ticker(*this);
    }
    ~Deadline() override { runtime_.remove_ticker(*this); }
    void on_tick() override {
      if (over_ && runtime_.clock().now() >= at_) std::exchange(over_, nullptr)();
    }

   private:
    Runtime& runtime_;
    Time_point at_;
    std::function<void()> over_;
  };

  Runtime& runtime_;
  client::Cluster cluster_;
  volume::Volume_opener opener_;
  Cluster_provider provider_;
  Nbd_server server_;
  std::optional<Deadline> deadline_;
};

/// Where the process that starts this daemon again notes itself; empty: none is asked for.
std::string keeper_file(Options const& options) {
  auto const cluster = cluster_name(options.cluster);
  if (!options.respawns || !cluster.has_value()) return {};
  auto const directory = run_directory(cluster.value());
  return make_directories(directory).has_value() ? directory + "/nbd.keeper" : "";
}

Outcome<void> serve(Options options, cli::Daemon_start& start) {
  PS_TRY(options.cluster, cluster_name(options.cluster));
  for (auto const& volume : options.volumes) PS_CHECK(volume::parse_volume_name(volume));
  PS_TRY(auto servers, bootstrap_list(options.cluster, options.servers));
  PS_TRY(auto key, load_key(key_path(options.cluster)));
  PS_TRY(auto const host, host_id(true));
  PS_TRY(auto const addresses, addresses_of(options));
  PS_TRY(auto const log, make_log(options.log_path, level_of(options.log_level)));

  Runtime_options runtime_options;
  runtime_options.identity.role = Role::client;
  runtime_options.identity.host = host;
  runtime_options.identity.cluster = options.cluster;
  runtime_options.identity.key = key;
  runtime_options.identity.encryption = options.encrypt;
  runtime_options.shared_payload_bytes = daemon_shared_payload_bytes;
  runtime_options.cpu_affinity = options.cpu_affinity;
  runtime_options.busy_poll_us = options.busy_poll_us;
  Runtime runtime(std::move(runtime_options), *log);

  client::Cluster_options cluster;
  cluster.session.servers = std::move(servers);
  cluster.session.name = process_name();
  cluster.session.host = host;
  cluster.session.on_servers = [name = options.cluster, &log](std::vector<Address> const& all) {
    if (auto saved = save_bootstrap_list(name, all); !saved.has_value())
      log->warn("cannot note the metadata servers", {{"reason", saved.error().text}});
  };
  PS_TRY(auto server, server_options(options));
  Service service(options, runtime, std::move(cluster), std::move(server));
  std::optional<cli::Pid_file> pid_file;
  cli::Monitor_options monitor;
  if (is_the_host_s(options)) {
    pid_file.emplace(run_directory(options.cluster) + "/nbd.pid");
    monitor.note_path = run_directory(options.cluster) + "/nbd.metrics";
  }
  monitor.given = options.metrics;
  monitor.preferred = Address{.host = "127.0.0.1", .port = 0, .unix_path = {}};
  monitor.daemon = "pstorage-nbd";
  PS_TRY(auto const served,
         cli::Monitor::start(runtime, std::move(monitor),
                             {[&service](Metrics_text& text) { service.collect(text); },
                              [&service] { return service.trouble(); }, nullptr}));
  return service.run(addresses, start);
}

}  // namespace
}  // namespace pstorage::nbd

int main(int count, char** arguments) {
  CLI::App app("Serves the volumes of a pstorage cluster over NBD.");
  pstorage::nbd::Options options;
  pstorage::nbd::add_options(app, options);
  try {
    app.parse(count, arguments);
  } catch (CLI::ParseError const& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::cerr << "pstorage-nbd: " << error.what() << "; try 'pstorage-nbd --help'\n";
    return 2;
  }
  pstorage::cli::Daemon_start start(options.background, pstorage::nbd::keeper_file(options));
  auto const served = pstorage::nbd::serve(options, start);
  if (served.has_value()) return 0;
  start.failed("pstorage-nbd", served.error().text);
  return 1;
}
