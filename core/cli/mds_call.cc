#include "core/cli/mds_call.h"

#include <unistd.h>

#include <optional>

#include "core/client/mds_session.h"
#include "core/config/etc.h"
#include "core/runtime/runtime.h"

namespace pstorage::cli {
namespace {

constexpr Duration probe_timeout = std::chrono::seconds(5);
constexpr Duration turn = std::chrono::milliseconds(10);

/// A command prints its own error; the library's log would only repeat it.
class Silent_log final : public Log {
 public:
  void write(Log_level, std::string_view, Fields) override {}
};

/// Connects once and remembers how it went.
class Probe final : public Connection_handler {
 public:
  void on_connected(Connection_id, Peer_info const& peer) override {
    if (peer.role == Role::mds) {
      result = success();
    } else {
      result = failure(Errc::refused, "not a metadata server");
    }
  }
  void on_message(Connection_id, Message&) override {}
  void on_disconnected(Connection_id, Failure const& why) override {
    if (!result) result = why;
  }
  std::optional<Outcome<void>> result;
};

bool is_final(Errc code) {
  return code == Errc::wrong_key || code == Errc::wrong_cluster || code == Errc::wrong_version;
}

std::string advice(Errc code, std::string const& cluster) {
  switch (code) {
    case Errc::wrong_key:
      return "; the key in " + key_path(cluster) + " is not the cluster's: run 'pstorage -c " +
             cluster + " auth-node'";
    case Errc::wrong_cluster:
      return "; check -c and the bootstrap list";
    case Errc::wrong_version:
      return "; install the same version of pstorage everywhere";
    default:
      return {};
  }
}

}  // namespace

struct Mds_caller::Loop {
  explicit Loop(Mds_caller_options given)
      : options(std::move(given)), runtime(runtime_options(options), log) {}
  ~Loop() {
    if (session) runtime.remove_ticker(*session);
  }

  static Runtime_options runtime_options(Mds_caller_options const& options) {
    Runtime_options out;
    out.identity.role = Role::tool;
    out.identity.host = options.host;
    out.identity.cluster = options.cluster;
    out.identity.key = options.key;
    out.handle_signals = false;  // Ctrl-C ends a tool
    return out;
  }

  /// success, or why this server is of no use.
  Outcome<void> probe(Address const& server) {
    Probe probe;
    auto const connection = runtime.network().connect(server, probe);
    auto const give_up = runtime.clock().now() + probe_timeout;
    while (!probe.result && runtime.clock().now() < give_up) runtime.run_turn(turn);
    runtime.network().close(connection);
    if (!probe.result) return failure(Errc::timed_out, "no answer");
    return *probe.result;
  }

  Silent_log log;
  Mds_caller_options options;
  Runtime runtime;
  std::unique_ptr<client::Mds_session> session;
};

Mds_caller::Mds_caller(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}
Mds_caller::~Mds_caller() = default;

Outcome<std::unique_ptr<Mds_caller>> Mds_caller::connect(Mds_caller_options options) {
  auto loop = std::make_unique<Loop>(std::move(options));
  auto const& cluster = loop->options.cluster;
  std::string reasons;
  std::string usable;
  for (auto const& server : loop->options.servers) {
    auto const probed = loop->probe(server);
    if (probed.has_value()) {
      usable = server.text();
      break;
    }
    auto const code = errc_of(probed.error().code);
    if (is_final(code)) {
      return failure(code, server.text() + ": " + probed.error().text + advice(code, cluster));
    }
    reasons += (reasons.empty() ? "" : "; ") + server.text() + ": " + probed.error().text;
  }
  if (usable.empty()) {
    return failure(Errc::unavailable, "no MDS of cluster '" + cluster + "' answers: " + reasons);
  }
  client::Mds_session_options session;
  session.servers = loop->options.servers;
  session.first_server = usable;
  if (loop->options.keeps_servers) {
    // Only a convenience: the list that is there has just been good enough.
    session.on_servers = [cluster](auto const& servers) {
      (void)save_bootstrap_list(cluster, servers);
    };
  }
  session.name = "pstorage[" + std::to_string(::getpid()) + "]";
  session.host = loop->options.host;
  auto& runtime = loop->runtime;
  loop->session = std::make_unique<client::Mds_session>(
      runtime.clock(), runtime.network(), runtime.random(), loop->log, std::move(session));
  runtime.add_ticker(*loop->session);
  return std::unique_ptr<Mds_caller>(new Mds_caller(std::move(loop)));
}

Outcome<std::unique_ptr<Mds_caller>> Mds_caller::connect(std::string const& cluster,
                                                         std::string const& bootstrap) {
  Mds_caller_options options;
  options.cluster = cluster;
  PS_TRY(options.servers, bootstrap_list(cluster, bootstrap));
  auto key = load_key(key_path(cluster));
  if (!key.has_value()) {
    if (errc_of(key.error().code) != Errc::not_found) return std::move(key).error();
    return failure(Errc::not_found, "this host does not know the key of cluster '" + cluster +
                                        "': run 'pstorage -c " + cluster + " auth-node' first");
  }
  options.key = key.value();
  PS_TRY(options.host, host_id(true));
  options.keeps_servers = true;
  return connect(std::move(options));
}

Outcome<proto::Mds_reply> Mds_caller::call(proto::Mds_request request) {
  std::optional<Outcome<proto::Mds_reply>> result;
  loop_->session->call(std::move(request), loop_->options.patience,
                       [&result](Outcome<proto::Mds_reply> reply) { result = std::move(reply); });
  while (!result) loop_->runtime.run_turn(turn);
  return *std::move(result);
}

}  // namespace pstorage::cli
