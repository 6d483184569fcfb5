// pstorage-mount: the cluster's name space as a mounted tree.

#include <grp.h>
#include <pwd.h>
#include <sys/prctl.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "blockdev/mount/file_system.h"
#include "blockdev/mount/fuse_port.h"
#include "blockdev/mount/host_cache.h"
#include "core/cli/daemon.h"
#include "core/config/etc.h"
#include "core/disk/atomic_file.h"
#include "core/runtime/implementation.h"

namespace pstorage::mount {
namespace {

// A stop waits this long for the cluster to take the last writes.
constexpr Duration stop_patience = std::chrono::seconds(30);

struct Options {
  std::string cluster;
  std::string mount_point;
  std::vector<std::string> mount_options;
  std::string mode;
  std::string group;
  std::string user;
  std::string servers;
  std::string log_path;
  std::string log_level = "info";
  bool foreground = false;
  bool encrypt = false;
  unsigned wait_seconds = 1;
  Cache_options cache;
};

void add_options(CLI::App& app, Options& options) {
  app.add_option("-c,--cluster", options.cluster, "Cluster name (or PSTORAGE_NAME)");
  app.add_option("MOUNTPOINT", options.mount_point, "Directory to mount on")->required();
  app.add_option("-o,--options", options.mount_options, "Options of mount(8), comma-separated")
      ->delimiter(',')
      ->allow_extra_args(false);
  app.add_option("-m,--mode", options.mode,
                 "Permissions, octal, of what has none of its own (default: 755)");
  app.add_option("-u,--user", options.user, "Its owner (default: root)");
  app.add_option("-g,--group", options.group, "Its group (default: root)");
  app.add_option("-C,--cache", options.cache.path,
                 "File on an SSD of this host that keeps what is read of files with "
                 "client-ssd-cache=1");
  app.add_option("-R,--cache-size", options.cache.mib, "Its size, MiB")
      ->check(CLI::Range(1u, 16u << 20));
  app.add_option("-b,--bootstrap", options.servers, "Metadata servers, ADDR[:PORT],...");
  app.add_option("-l,--log", options.log_path,
                 "Log file (default in the background: /var/log/pstorage/CLUSTER/mount.log)");
  app.add_option("-d,--debug-level", options.log_level, "debug, info, warn or error")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}));
  app.add_flag("-f,--foreground", options.foreground, "Stay in the foreground");
  app.add_flag("--encrypt", options.encrypt, "Encrypt the traffic with the cluster");
  app.add_option("--wait", options.wait_seconds,
                 "Seconds to wait for a file that another host has open")
      ->check(CLI::Range(0u, 3600u));
  app.set_version_flag("-v,--version", std::string("pstorage-mount ") + PSTORAGE_VERSION);
}

Log_level level_of(std::string const& name) {
  if (name == "debug") return Log_level::debug;
  if (name == "warn") return Log_level::warn;
  return name == "error" ? Log_level::error : Log_level::info;
}

bool parse_number(std::string const& text, int base, unsigned& value) {
  auto const [at, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc() && at == text.data() + text.size() && !text.empty();
}

Outcome<Defaults> defaults_of(Options const& options) {
  Defaults defaults;
  constexpr int octal = 8;
  unsigned number = 0;
  if (!options.mode.empty()) {
    if (!parse_number(options.mode, octal, number) || number > 0777)
      return failure(Errc::bad_request,
                     "-m " + options.mode + ": give permissions in octal, such as 750");
    defaults.mode = number;
  }
  // Before the loop runs: one thread, no NSS answer is shared.
  if (!options.user.empty() && !parse_number(options.user, 10, defaults.uid)) {
    passwd entry = {};
    passwd* found = nullptr;
    std::vector<char> buffer(16384);
    ::getpwnam_r(options.user.c_str(), &entry, buffer.data(), buffer.size(), &found);
    if (found == nullptr)
      return failure(Errc::not_found, "there is no user '" + options.user + "'");
    defaults.uid = found->pw_uid;
  }
  if (!options.group.empty() && !parse_number(options.group, 10, defaults.gid)) {
    group entry = {};
    group* found = nullptr;
    std::vector<char> buffer(65536);
    ::getgrnam_r(options.group.c_str(), &entry, buffer.data(), buffer.size(), &found);
    if (found == nullptr)
      return failure(Errc::not_found, "there is no group '" + options.group + "'");
    defaults.gid = found->gr_gid;
  }
  return defaults;
}

std::string mount_options(Options const& options) {
  std::string text =
      "default_permissions,allow_other,fsname=pstorage://" + options.cluster + ",subtype=pstorage";
  for (auto const& one : options.mount_options)
    if (!one.empty()) text += "," + one;
  return text;
}

class Service {
 public:
  Service(Options const& options, Defaults const& defaults, Runtime& runtime,
          client::Cluster_options const& cluster_options)
      : options_(options),
        runtime_(runtime),
        cluster_(runtime.clock(), runtime.network(), runtime.random(), runtime.log(),
                 runtime.executor(), cluster_options),
        disk_cluster_(runtime.clock(), runtime.network(), runtime.random(), runtime.log(),
                      runtime.executor(), disk_options(cluster_options)),
        disks_(disk_cluster_, runtime.executor(), runtime.clock(), runtime.log(), defaults,
               std::chrono::seconds(options.wait_seconds)),
        files_(
            cluster_, runtime.clock(), runtime.log(),
            {defaults, std::chrono::seconds(options.wait_seconds)},
            [this](File_id file) { drop_pages(file); }, disks_),
        port_(runtime.implementation().loop(), [this] { ended(); }),
        ticker_(*this) {
    runtime_.add_ticker(cluster_);
    runtime_.add_ticker(disk_cluster_);
    runtime_.add_ticker(ticker_);
  }
  ~Service() {
    runtime_.remove_ticker(ticker_);
    runtime_.remove_ticker(disk_cluster_);
    runtime_.remove_ticker(cluster_);
  }
  Service(Service const&) = delete;
  Service& operator=(Service const&) = delete;

  /// Runs until it is unmounted or a signal comes, or until it cannot serve.
  Outcome<void> run(cli::Daemon_start& start) {
    // Nothing is mounted that would hang at the first look: the cluster has to answer first.
    proto::Mds_request query;
    query.mutable_lookup()->set_path("/");
    cluster_.mds().call(std::move(query), std::chrono::seconds(12),
                        [this, &start](Outcome<proto::Mds_reply> answer) {
                          if (answer.has_error()) return fail(answer.error());
                          if (auto const opened = open_cache(); opened.has_error())
                            return fail(opened.error());
                          auto const mounted = port_.mount(
                              operations_, &files_, options_.mount_point, mount_options(options_));
                          if (mounted.has_error()) return fail(mounted.error());
                          runtime_.log().info("mounted", {{"at", options_.mount_point}});
                          start.ready();
                        });
    runtime_.set_stop_handler([this] {
      port_.unmount();
      ended();
    });
    runtime_.run();
    if (cache_ != nullptr) cache_->close();
    return result_;
  }

 private:
  Outcome<void> open_cache() {
    if (options_.cache.path.empty()) return success();
    PS_TRY(cache_, Host_cache::open(options_.cache, cluster_.mds().cluster_uuid(), runtime_));
    cluster_.set_read_cache(cache_->cache());
    disk_cluster_.set_read_cache(cache_->cache());
    return success();
  }

  static client::Cluster_options disk_options(client::Cluster_options options) {
    options.session.name += " .disks";
    return options;
  }

  void fail(Failure const& why) {
    result_ = why;
    runtime_.stop();
  }

  /// Unmounted: everything is flushed and given back, then the process ends.
  void ended() {
    if (stop_at_) return;
    runtime_.log().info("unmounted; flushing");
    stop_at_ = runtime_.clock().now() + stop_patience;
    disks_.stop([this] { files_.stop([this] { close_session(); }); });
  }

  void close_session() {
    proto::Mds_request request;
    request.mutable_close_session();
    cluster_.mds().call(std::move(request), std::chrono::seconds(2), [this](auto const&) {
      runtime_.log().info("everything is flushed");
      runtime_.stop();
    });
  }

  void tick() {
    files_.on_tick();
    disks_.on_tick();
    if (!stop_at_ || runtime_.clock().now() < *stop_at_) return;
    fail(failure(Errc::timed_out,
                 "stopped without flushing everything: the cluster does not answer"));
  }

  /// In a helper thread: the kernel waits for pages that are being read, and those wait for us.
  void drop_pages(File_id file) {
    auto* const session = port_.session();
    if (session == nullptr || stop_at_) return;
    runtime_.implementation().pool().run(
        [session, file] { ::fuse_lowlevel_notify_inval_inode(session, file.value, 0, 0); });
  }

  class Service_ticker final : public Ticker {
   public:
    explicit Service_ticker(Service& service) : service_(service) {}
    void on_tick() override { service_.tick(); }

   private:
    Service& service_;
  };

  Options const& options_;
  Runtime& runtime_;
  std::unique_ptr<Host_cache> cache_;
  client::Cluster cluster_;
  client::Cluster disk_cluster_;
  fuse_lowlevel_ops operations_ = File_system::operations();
  Disk_view disks_;
  File_system files_;
  Fuse_port port_;
  Service_ticker ticker_;
  Outcome<void> result_ = success();
  std::optional<Time_point> stop_at_;
};

Outcome<std::unique_ptr<Leveled_log>> open_log(Options const& options) {
  auto path = options.log_path;
  if (path.empty() && !options.foreground) {
    auto const directory = "/var/log/pstorage/" + options.cluster;
    PS_CHECK(make_directories(directory));
    path = directory + "/mount.log";
  }
  return make_log(path, level_of(options.log_level));
}

Outcome<void> serve(Options options, cli::Daemon_start& start) {
  PS_TRY(options.cluster, cluster_name(options.cluster));
  PS_TRY(auto const defaults, defaults_of(options));
  PS_CHECK(take_cache_options(options.mount_options, options.cache));
  PS_TRY(auto servers, bootstrap_list(options.cluster, options.servers));
  PS_TRY(auto key, load_key(key_path(options.cluster)));
  PS_TRY(auto const host, host_id(true));
  std::error_code error;
  if (!std::filesystem::is_directory(options.mount_point, error)) {
    if (error == std::errc::not_connected)
      return failure(Errc::refused, "'" + options.mount_point +
                                        "' is what a dead mount has left: run 'umount -l " +
                                        options.mount_point + "' first");
    return failure(Errc::not_directory,
                   "'" + options.mount_point + "' is not a directory: make it");
  }
  options.mount_point = std::filesystem::canonical(options.mount_point, error).string();
  PS_TRY(auto const log, open_log(options));

  Runtime_options runtime_options;
  runtime_options.identity.role = Role::client;
  runtime_options.identity.host = host;
  runtime_options.identity.cluster = options.cluster;
  runtime_options.identity.key = key;
  runtime_options.identity.encryption = options.encrypt;
  Runtime runtime(std::move(runtime_options), *log);

  client::Cluster_options cluster;
  cluster.session.servers = std::move(servers);
  cluster.session.name = process_name();
  cluster.session.host = host;
  cluster.session.on_servers = [name = options.cluster, &log](std::vector<Address> const& all) {
    if (auto saved = save_bootstrap_list(name, all); !saved.has_value())
      log->warn("cannot note the metadata servers", {{"reason", saved.error().text}});
  };
  // A loop device on one of our files writes back when memory is short: that must not wait for us.
  // Refused without CAP_SYS_RESOURCE; then there is only less memory for it.
  if (::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0)
    log->debug("the kernel does not take this process for one that writes back",
               {{"reason", std::string(std::strerror(errno))}});
  Service service(options, defaults, runtime, cluster);
  return service.run(start);
}

}  // namespace
}  // namespace pstorage::mount

int main(int count, char** arguments) {
  CLI::App app("Mounts the files of a pstorage cluster.");
  pstorage::mount::Options options;
  pstorage::mount::add_options(app, options);
  try {
    app.parse(count, arguments);
  } catch (CLI::ParseError const& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::cerr << "pstorage-mount: " << error.what() << "; try 'pstorage-mount --help'\n";
    return 2;
  }
  pstorage::cli::Daemon_start start(!options.foreground);
  auto const served = pstorage::mount::serve(options, start);
  if (served.has_value()) return 0;
  start.failed("pstorage-mount", served.error().text);
  return 1;
}
