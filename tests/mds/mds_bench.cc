// Load for the metadata servers of a cluster, for scripts/bench mds: as many requests in flight as
// asked for, one line of JSON with rate and latencies at the end.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/auth/key.h"
#include "core/client/mds_session.h"
#include "core/config/etc.h"
#include "core/runtime/runtime.h"

namespace {

using namespace pstorage;

constexpr Duration turn = std::chrono::milliseconds(10);
constexpr std::uint32_t indexes_a_command = 1024;
constexpr std::uint32_t chunk_bytes = 64u << 10;  // placement sees to it that there is room

struct Options {
  std::string cluster;
  std::string load = "put";
  unsigned in_flight = 1;
  unsigned seconds = 5;
  std::uint64_t chunks = 0;  // fill: this many
  std::size_t value_bytes = 200;
};

class Bench {
 public:
  Bench(Runtime& runtime, Log& log, Options const& options, client::Mds_session_options session)
      : runtime_(runtime),
        options_(options),
        session_(runtime.clock(), runtime.network(), runtime.random(), log, std::move(session)) {
    runtime_.add_ticker(session_);
  }
  ~Bench() { runtime_.remove_ticker(session_); }

  nlohmann::json run() {
    prepare();
    auto const begin = runtime_.clock().now();
    auto const end = begin + std::chrono::seconds(options_.seconds);
    auto const is_over = [&] {
      return options_.load == "fill" ? next_index_ >= options_.chunks
                                     : runtime_.clock().now() >= end;
    };
    while (!is_over() || under_way_ != 0) {
      while (!is_over() && under_way_ < options_.in_flight) send();
      runtime_.run_turn(turn);
    }
    auto const elapsed = std::chrono::duration<double>(runtime_.clock().now() - begin).count();
    std::sort(times_.begin(), times_.end());
    auto const at = [this](double share) {
      if (times_.empty()) return 0.0;
      return times_[static_cast<std::size_t>(share * static_cast<double>(times_.size() - 1))];
    };
    return {{"load", options_.load},
            {"in_flight", options_.in_flight},
            {"requests", times_.size()},
            {"seconds", elapsed},
            {"per_second", static_cast<double>(times_.size()) / elapsed},
            {"p50_us", at(0.5)},
            {"p99_us", at(0.99)},
            {"chunks", next_index_}};
  }

 private:
  proto::Mds_reply ask(proto::Mds_request request) {
    std::optional<Outcome<proto::Mds_reply>> result;
    session_.call(std::move(request), std::chrono::seconds(30),
                  [&result](Outcome<proto::Mds_reply> reply) { result = std::move(reply); });
    while (!result) runtime_.run_turn(turn);
    if (result->has_value()) return std::move(*result).value();
    std::cerr << "mds_bench: " << result->error().text << "\n";
    std::exit(1);
  }

  void prepare() {
    auto const own = "/bench/" + std::to_string(::getpid());
    proto::Mds_request create;
    create.mutable_create()->set_path(own);
    create.mutable_create()->set_parents(true);
    create.mutable_create()->mutable_attributes()->set_chunk_size(chunk_bytes);
    create.mutable_create()->set_size(std::max<std::uint64_t>(options_.chunks, 1u << 20) *
                                      chunk_bytes);
    file_ = ask(std::move(create)).file().id();
    path_ = own;
    for (unsigned i = 0; options_.load == "open" && i < options_.in_flight; ++i) {
      proto::Mds_request more;
      more.mutable_create()->set_path(own + "-" + std::to_string(i));
      more.mutable_create()->set_size(chunk_bytes);
      ask(std::move(more));
      free_files_.push_back(i);
    }
    if (options_.load != "allocate" && options_.load != "fill") return;
    proto::Mds_request open;
    open.mutable_open_file()->set_path(path_);
    epoch_ = ask(std::move(open)).lease().epoch();
    proto::Mds_request seal;
    seal.mutable_finish_seal()->set_file(file_);
    seal.mutable_finish_seal()->set_epoch(epoch_);
    ask(std::move(seal));
  }

  proto::Mds_request next() {
    proto::Mds_request request;
    if (options_.load == "lookup") {
      request.mutable_lookup()->set_path(path_);
    } else if (options_.load == "create") {
      request.mutable_create()->set_path(path_ + "-" + std::to_string(++number_));
      request.mutable_create()->set_size(chunk_bytes);
    } else if (options_.load == "put") {
      auto& command = *request.mutable_set_attributes();
      command.set_path(path_);
      (*command.mutable_properties())["v"] = std::string(options_.value_bytes, 'v');
    } else {
      auto& command = *request.mutable_allocate();
      command.set_file(file_);
      command.set_epoch(epoch_);
      auto const left = options_.load == "fill" ? options_.chunks - next_index_ : 1;
      auto const count = std::min<std::uint64_t>(left, indexes_a_command);
      for (std::uint64_t i = 0; i < count; ++i) {
        command.add_indexes(static_cast<std::uint32_t>(next_index_++));
      }
    }
    return request;
  }

  using Done = std::function<void(proto::Mds_reply const&)>;
  void call(proto::Mds_request request, Done done) {
    session_.call(std::move(request), std::chrono::seconds(30),
                  [done = std::move(done)](Outcome<proto::Mds_reply> const& reply) {
                    if (reply.has_value()) return done(reply.value());
                    std::cerr << "mds_bench: " << reply.error().text << "\n";
                    std::exit(1);
                  });
  }

  void send() {
    ++under_way_;
    auto const sent = runtime_.clock().now();
    if (options_.load == "open") return open_and_close(sent);
    call(next(), [this, sent](proto::Mds_reply const&) { ended(sent); });
  }
  void ended(Time_point sent) {
    --under_way_;
    times_.push_back(
        std::chrono::duration<double, std::micro>(runtime_.clock().now() - sent).count());
  }

  /// All that a writer asks of the MDS: the lease, that it is sealed, its end. A file a request.
  void open_and_close(Time_point sent) {
    auto const file = free_files_.back();
    free_files_.pop_back();
    proto::Mds_request open;
    open.mutable_open_file()->set_path(path_ + "-" + std::to_string(file));
    call(std::move(open), [this, sent, file](proto::Mds_reply const& opened) {
      auto const id = opened.lease().file().id();
      auto const epoch = opened.lease().epoch();
      proto::Mds_request seal;
      seal.mutable_finish_seal()->set_file(id);
      seal.mutable_finish_seal()->set_epoch(epoch);
      call(std::move(seal), [this, sent, file, id, epoch](proto::Mds_reply const&) {
        proto::Mds_request close;
        close.mutable_close_file()->set_file(id);
        close.mutable_close_file()->set_epoch(epoch);
        call(std::move(close), [this, sent, file](proto::Mds_reply const&) {
          free_files_.push_back(file);
          ended(sent);
        });
      });
    });
  }

  Runtime& runtime_;
  Options const& options_;
  client::Mds_session session_;
  std::string path_;
  std::uint64_t file_ = 0;
  std::uint32_t epoch_ = 0;
  std::uint64_t next_index_ = 0;
  std::uint64_t number_ = 0;
  unsigned under_way_ = 0;
  std::vector<unsigned> free_files_;  // open: not in use
  std::vector<double> times_;
};

Outcome<void> run(Options& options) {
  PS_TRY(options.cluster, cluster_name(options.cluster));
  client::Mds_session_options session;
  PS_TRY(session.servers, bootstrap_list(options.cluster, ""));
  session.name = "mds_bench[" + std::to_string(::getpid()) + "]";
  PS_TRY(session.host, host_id(true));
  Runtime_options runtime_options;
  runtime_options.identity.role = Role::tool;
  runtime_options.identity.host = session.host;
  runtime_options.identity.cluster = options.cluster;
  PS_TRY(runtime_options.identity.key, load_key(key_path(options.cluster)));
  runtime_options.handle_signals = false;
  Silent_log log;
  Runtime runtime(std::move(runtime_options), log);
  Bench bench(runtime, log, options, std::move(session));
  std::cout << bench.run().dump() << std::endl;
  return success();
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Load for the metadata servers of a cluster.", "mds_bench");
  app.add_option("-c,--cluster", options.cluster, "Cluster (default: PSTORAGE_NAME)");
  app.add_option("--load", options.load, "put, create, open, lookup, allocate, fill")
      ->check(CLI::IsMember({"put", "create", "open", "lookup", "allocate", "fill"}));
  app.add_option("--in-flight", options.in_flight, "Requests at a time")
      ->check(CLI::Range(1, 4096));
  app.add_option("--seconds", options.seconds, "How long")->check(CLI::Range(1, 3600));
  app.add_option("--chunks", options.chunks, "fill: chunks to allocate");
  app.add_option("--value-bytes", options.value_bytes, "put: bytes of the value");
  CLI11_PARSE(app, argc, argv);
  auto const done = run(options);
  if (done.has_value()) return 0;
  std::cerr << "mds_bench: " << done.error().text << "\n";
  return 1;
}
