#include "core/cli/cs_call.h"

#include <optional>

#include "core/address.h"
#include "core/auth/key.h"
#include "core/config/etc.h"
#include "core/runtime/runtime.h"

namespace pstorage::cli {
namespace {

constexpr Duration turn = std::chrono::milliseconds(10);

/// One connection, one answer at a time.
class Peer final : public Connection_handler {
 public:
  void on_connected(Connection_id, Peer_info const&) override {}
  void on_message(Connection_id, Message& message) override { answer = std::move(message); }
  void on_disconnected(Connection_id, Failure const& why) override { lost = why; }

  Connection_id connection;
  std::optional<Message> answer;
  std::optional<Failure> lost;
};

/// A unix socket on this host, else the first other one.
Address pick_address(proto::Cs_address const& server, Host_id host) {
  Address chosen;
  for (auto const& text : server.addresses()) {
    auto const parsed = Address::parse(text, 0);
    if (parsed.has_error()) continue;
    bool const is_here = server.host_id() == host.value;
    if (parsed.value().is_unix() && is_here) return parsed.value();
    if (!parsed.value().is_unix() && chosen.host.empty()) chosen = parsed.value();
  }
  return chosen;
}

Runtime_options runtime_options(std::string const& cluster, Cluster_key const& key, Host_id host) {
  Runtime_options out;
  out.identity.role = Role::tool;
  out.identity.host = host;
  out.identity.cluster = cluster;
  out.identity.key = key;
  out.handle_signals = false;  // Ctrl-C ends a tool
  return out;
}

}  // namespace

struct Cs_caller::Loop {
  Loop(std::string const& cluster, Cluster_key const& key, Host_id its_host)
      : host(its_host), runtime(runtime_options(cluster, key, its_host), log) {}
  ~Loop() {
    for (auto const& [cs, peer] : peers) runtime.network().close(peer->connection);
  }
  Silent_log log;
  Host_id host;
  Runtime runtime;
  std::map<std::uint32_t, std::unique_ptr<Peer>> peers;
  std::uint64_t next_request = 1;
};

Cs_caller::Cs_caller(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}
Cs_caller::~Cs_caller() = default;

Outcome<std::unique_ptr<Cs_caller>> Cs_caller::make(std::string const& cluster) {
  PS_TRY(auto const key, load_key(key_path(cluster)));
  PS_TRY(auto const host, host_id(true));
  return std::unique_ptr<Cs_caller>(new Cs_caller(std::make_unique<Loop>(cluster, key, host)));
}

Outcome<proto::Cs_reply> Cs_caller::call(proto::Cs_address const& server,
                                         proto::Cs_request const& request, Duration patience) {
  auto& runtime = loop_->runtime;
  auto& peer = loop_->peers[server.cs()];
  std::string const name = "CS#" + std::to_string(server.cs());
  if (!peer || peer->lost) {
    peer = std::make_unique<Peer>();
    peer->connection = runtime.network().connect(pick_address(server, loop_->host), *peer);
  }
  Message message;
  message.header.operation = Operation::control;
  message.header.request_id = loop_->next_request++;
  auto const expected = message.header.request_id;
  message.meta = Slice::allocate(request.ByteSizeLong());
  request.SerializeToArray(message.meta.data(), static_cast<int>(message.meta.size()));
  peer->answer.reset();
  runtime.network().send(peer->connection, std::move(message));
  auto const give_up = runtime.clock().now() + patience;
  while (!peer->lost && runtime.clock().now() < give_up &&
         !(peer->answer && peer->answer->header.request_id == expected)) {
    runtime.run_turn(turn);
  }
  if (peer->lost) return failure(Errc::unavailable, name + ": " + peer->lost->text);
  if (!peer->answer) return failure(Errc::timed_out, name + " does not answer");
  proto::Cs_reply reply;
  auto const& meta = peer->answer->meta;
  if (!reply.ParseFromArray(meta.data(), static_cast<int>(meta.size()))) {
    return failure(Errc::bad_request, name + " gives a malformed answer");
  }
  if (reply.status() != 0) {
    return failure(
        static_cast<Errc>(reply.status()),
        name + ": " +
            (reply.text().empty() ? message_of(static_cast<Errc>(reply.status())) : reply.text()));
  }
  return reply;
}

}  // namespace pstorage::cli
