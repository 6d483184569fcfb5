#include "blockdev/volume/tool_session.h"

#include <unistd.h>

#include <optional>

#include "core/config/etc.h"

namespace pstorage::volume {
namespace {

constexpr Duration turn_max = std::chrono::milliseconds(10);
constexpr Duration silence_max = std::chrono::seconds(60);
constexpr Duration goodbye_max = std::chrono::seconds(2);

}  // namespace

struct Tool_session::Loop {
  Loop(Runtime_options options, client::Cluster_options cluster_options)
      : runtime(std::move(options), log),
        cluster(runtime.clock(), runtime.network(), runtime.random(), log, runtime.executor(),
                std::move(cluster_options)) {
    runtime.add_ticker(cluster);
  }
  ~Loop() { runtime.remove_ticker(cluster); }
  Loop(Loop const&) = delete;
  Loop& operator=(Loop const&) = delete;

  /// Until `start(callback)` was answered: every call of the client library is.
  template <typename T, typename Start>
  T wait(Start const& start) {
    auto const answer = std::make_shared<std::optional<T>>();
    start([answer](T result) { answer->emplace(std::move(result)); });
    while (!*answer) runtime.run_turn(turn_max);
    return std::move(**answer);
  }

  Silent_log log;
  Runtime runtime;
  client::Cluster cluster;
  bool has_given_up = false;
};

Tool_session::Tool_session(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}

Tool_session::~Tool_session() {
  if (loop_->has_given_up) return;  // the session ends by itself
  proto::Mds_request request;
  request.mutable_close_session();
  auto const closed = loop_->wait<Outcome<proto::Mds_reply>>([&](client::Mds_done done) {
    loop_->cluster.mds().call(std::move(request), goodbye_max, std::move(done));
  });
  (void)closed;  // else the session ends by itself, a little later
}

Outcome<std::unique_ptr<Tool_session>> Tool_session::connect(std::string const& cluster,
                                                             std::string const& bootstrap) {
  Runtime_options runtime;
  runtime.identity.role = Role::tool;
  runtime.identity.cluster = cluster;
  runtime.handle_signals = false;  // Ctrl-C ends a tool
  PS_TRY(runtime.identity.host, host_id(true));
  PS_TRY(runtime.identity.key, load_key(key_path(cluster)));
  client::Cluster_options options;
  PS_TRY(options.session.servers, bootstrap_list(cluster, bootstrap));
  options.session.name = "pstorage[" + std::to_string(::getpid()) + "]";
  options.session.host = runtime.identity.host;
  return std::unique_ptr<Tool_session>(
      new Tool_session(std::make_unique<Loop>(std::move(runtime), std::move(options))));
}

client::Cluster& Tool_session::cluster() { return loop_->cluster; }
Runtime& Tool_session::runtime() { return loop_->runtime; }
Executor& Tool_session::executor() { return loop_->runtime.executor(); }
Random& Tool_session::random() { return loop_->runtime.random(); }
std::uint64_t Tool_session::wall_ms() { return loop_->runtime.clock().wall_ms(); }

ploop::Turn Tool_session::turn() {
  // A new wait begins when the last turn is a while ago or this is the first one.
  struct Waiting {
    Time_point since{};
    Time_point last{};
  };
  return [this, waiting = std::make_shared<Waiting>()] {
    auto const now = loop_->runtime.clock().now();
    if (now - waiting->last > turn_max * 10) waiting->since = now;
    waiting->last = now;
    if (now - waiting->since > silence_max) loop_->has_given_up = true;
    if (loop_->has_given_up) return false;
    loop_->runtime.run_turn(turn_max);
    waiting->last = loop_->runtime.clock().now();
    return true;
  };
}

Outcome<proto::Mds_reply> Tool_session::call(proto::Mds_request request) {
  return loop_->wait<Outcome<proto::Mds_reply>>([&](client::Mds_done done) {
    loop_->cluster.mds().call(std::move(request), patience, std::move(done));
  });
}

Outcome<std::shared_ptr<client::Volume>> Tool_session::open(std::string const& path,
                                                            Duration busy_patience) {
  using Opened = Outcome<std::unique_ptr<client::Volume>>;
  auto opened = loop_->wait<Opened>([&](std::function<void(Opened)> done) {
    loop_->cluster.open(path, {.force = false, .patience = busy_patience}, std::move(done));
  });
  if (!opened.has_value()) return std::move(opened).error();
  return std::shared_ptr<client::Volume>(std::move(opened).value());
}

Outcome<std::shared_ptr<client::Volume>> Tool_session::open_reader(std::string const& path) {
  using Opened = Outcome<std::unique_ptr<client::Volume>>;
  auto opened = loop_->wait<Opened>([&](std::function<void(Opened)> done) {
    loop_->cluster.open_reader(path, patience, std::move(done));
  });
  if (!opened.has_value()) return std::move(opened).error();
  return std::shared_ptr<client::Volume>(std::move(opened).value());
}

Outcome<void> Tool_session::close(std::shared_ptr<client::Volume> volume) {
  auto const path = volume->path();
  auto const closed = ploop::wait_for_answer<Result<void>>(
      turn(), [&](client::Done done) { volume->close(std::move(done)); });
  if (!closed)
    return failure(closed.error(), "cannot close " + path + ": " + closed.error().message());
  return success();
}

Outcome<void> Tool_session::compare(client::Volume& volume, std::uint32_t index) {
  auto const compared = ploop::wait_for_answer<Result<void>>(
      turn(), [&](client::Done done) { loop_->cluster.compare(volume, index, std::move(done)); });
  if (!compared)
    return failure(compared.error(), volume.path() + ": " + compared.error().message());
  return success();
}

Outcome<void> Tool_session::ask_holder(std::string const& path, proto::Holder_request request) {
  return loop_->wait<Outcome<void>>([&](std::function<void(Outcome<void>)> done) {
    loop_->cluster.ask_holder(path, std::move(request), patience, std::move(done));
  });
}

}  // namespace pstorage::volume
