#include "core/cli/mds_call.h"

#include <unistd.h>

#include <algorithm>
#include <list>
#include <optional>

#include "core/client/mds_session.h"
#include "core/config/etc.h"
#include "core/runtime/runtime.h"

namespace pstorage::cli {
namespace {

constexpr Duration probe_timeout = std::chrono::seconds(5);
constexpr Duration probe_head_start = std::chrono::milliseconds(250);
constexpr Duration turn = std::chrono::milliseconds(10);

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

  struct Attempt {
    std::string server;
    Probe probe;
    Connection_id connection;
  };

  /// The first server that answers, or why none of them is of use. One that hangs does not keep the
  /// next from being asked.
  Outcome<std::string> find_server() {
    std::list<Attempt> attempts;
    auto const& servers = options.servers;
    auto const begin = runtime.clock().now();
    auto next_at = begin;
    std::optional<Outcome<std::string>> found;
    while (!found) {
      auto const now = runtime.clock().now();
      bool const all_ended = std::all_of(attempts.begin(), attempts.end(),
                                         [](auto const& one) { return one.probe.result; });
      if (attempts.size() < servers.size() && (now >= next_at || all_ended)) {
        auto const& server = servers[attempts.size()];
        auto& attempt = attempts.emplace_back();
        attempt.server = server.text();
        attempt.connection = runtime.network().connect(server, attempt.probe);
        next_at = now + probe_head_start;
      } else if ((attempts.size() == servers.size() && all_ended) || now - begin > probe_timeout) {
        found = nobody_answers(attempts);
        break;
      }
      runtime.run_turn(turn);
      found = verdict(attempts);
    }
    for (auto const& attempt : attempts) runtime.network().close(attempt.connection);
    return *std::move(found);
  }

  /// A server that can be used, or a reason that every server would give.
  std::optional<Outcome<std::string>> verdict(std::list<Attempt> const& attempts) const {
    for (auto const& [server, probe, connection] : attempts) {
      if (!probe.result) continue;
      if (probe.result->has_value()) return server;
      auto const& why = probe.result->error();
      auto const code = errc_of(why.code);
      if (is_final(code)) {
        return failure(code, server + ": " + why.text + advice(code, options.cluster));
      }
    }
    return std::nullopt;
  }

  Failure nobody_answers(std::list<Attempt> const& attempts) const {
    std::string reasons;
    for (auto const& [server, probe, connection] : attempts) {
      reasons += (reasons.empty() ? "" : "; ") + server + ": " +
                 (probe.result ? probe.result->error().text : "no answer");
    }
    return failure(Errc::unavailable,
                   "no MDS of cluster '" + options.cluster + "' answers: " + reasons);
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
  PS_TRY(auto const usable, loop->find_server());
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
