#include "tests/sim/sim_processes.h"

#include <algorithm>
#include <utility>

#include "cs/layout.h"
#include "cs/repository.h"

namespace pstorage::sim {
namespace {

constexpr char const* cluster_name = "sim";
constexpr char const* cluster_uuid = "00000000000000000000000000000001";
constexpr std::uint64_t journal_bytes = 1u << 20;

}  // namespace

// ------------------------------------------------------------------ MDS

Cluster_sim::Mds_host::Mds_host(Sim_world& the_world, std::uint32_t its_number,
                                mds::raft::Configuration its_first, Cluster_plan const& plan)
    : world(the_world),
      number(its_number),
      first(std::move(its_first)),
      session_timeout(plan.session_timeout),
      settle_after(plan.settle_after),
      node(world.add_node("mds" + std::to_string(number), Role::mds, {0x10 + number})),
      disk(node, world.random(), {}) {}

Cluster_sim::Mds_host::~Mds_host() = default;

Address Cluster_sim::Mds_host::address_of(std::uint32_t number, std::uint16_t port) {
  return {.host = "mds" + std::to_string(number), .port = port, .unix_path = {}};
}

std::string Cluster_sim::Mds_host::start() {
  mds::raft::Raft_node_options log;
  log.cluster_uuid = cluster_uuid;
  log.listen = address_of(number, 2510);
  log.log.segment_bytes = 256u << 10;
  log.log.reserve_bytes = 64u << 10;
  log.log.member = {number};
  log.log.first = first;
  log.log.must_exist = disk.exists("raft");
  mds::Metadata_server_options options;
  options.cluster = cluster_name;
  options.cluster_uuid = cluster_uuid;
  options.id = Mds_id{number};
  options.address = log.listen.text();
  options.host_name = node.name();
  options.session_timeout = session_timeout;
  options.settle_after = settle_after;
  options.apply_rows_max = world.random().next() % 2 == 0 ? 1 : options.apply_rows_max;
  options.next_turn = [this](std::function<void()> work) { node.at({}, std::move(work)); };
  // The database is in memory, so the log is never cut and no member needs a copy of it.
  entries = std::make_unique<mds::raft::Raft_node>(node, node, disk, world.random(), world,
                                                   std::move(log), nullptr, nullptr);
  server = std::make_unique<mds::Metadata_server>(node, node, disk, world.random(), world, *entries,
                                                  std::move(options));
  node.start({entries.get(), server.get()});  // its connections belong to this life
  if (auto started = server->start(); started.has_error()) return started.error().text;
  if (auto listening = node.listen(address_of(number), *server); listening.has_error())
    return listening.error().text;
  node.set_turn_hook(server.get());
  return {};
}

void Cluster_sim::Mds_host::stop(bool power) {
  node.stop(power);
  server.reset();
  entries.reset();
  if (power)
    disk.crash();
  else
    disk.kill();
}

// ------------------------------------------------------------------ CS

Cluster_sim::Cs_host::Cs_host(Sim_world& the_world, Cs_id its_id, Host_id host,
                              std::vector<Address> its_mds_servers)
    : world(the_world),
      id(its_id),
      mds_servers(std::move(its_mds_servers)),
      node(world.add_node("cs" + std::to_string(its_id.value), Role::cs, host)),
      disk(node, world.random(), {.would_block_percent = 10}) {}

Cluster_sim::Cs_host::~Cs_host() = default;

std::string Cluster_sim::Cs_host::make_repository() {
  identity.cluster = cluster_name;
  identity.cluster_uuid = cluster_uuid;
  identity.cs = id;
  cs::randomize(identity, world.random());
  auto made = cs::make_contents(disk, disk, "journal", identity, journal_bytes, [](auto) {});
  if (made.has_error()) return made.error().text;
  auto finished = cs::finish_repository(disk, identity);
  return finished.has_error() ? finished.error().text : std::string();
}

std::string Cluster_sim::Cs_host::start() {
  cs::Chunk_server_options options;
  options.identity = identity;
  options.host = node.host();
  options.host_name = node.name();
  options.mds_servers = mds_servers;
  options.store.reserve_bytes = 1u << 20;
  options.executor = &node;
  server = std::make_unique<cs::Chunk_server>(node, node, disk, disk, world.random(), world,
                                              std::move(options));
  if (auto started = server->start(); started.has_error()) return started.error().text;
  if (auto listening = node.listen(address(), *server); listening.has_error())
    return listening.error().text;
  node.set_turn_hook(server.get());
  server->serve({address()});
  node.start({server.get()});
  return {};
}

void Cluster_sim::Cs_host::stop(bool power) {
  node.stop(power);
  server.reset();
  if (power)
    disk.crash();
  else
    disk.kill();
}

bool Cluster_sim::Cs_host::flip_data(Sim_random& random) {
  auto const folders = disk.list("chunks");
  if (folders.has_error() || folders.value().empty()) return false;
  auto const& folder = folders.value()[random.below(folders.value().size())];
  auto const files = disk.list("chunks/" + folder);
  if (files.has_error() || files.value().empty()) return false;
  auto const& file = files.value()[random.below(files.value().size())];
  std::string const name = "chunks/" + folder + "/" + file;
  auto opened = disk.open(name, {});
  if (opened.has_error()) return false;
  auto const size = opened.value()->size();
  std::uint64_t const data = cs::data_offset(64 << 10);
  if (size.has_error() || size.value() <= data) return false;
  disk.flip(name, data + random.below(size.value() - data),
            static_cast<unsigned char>(1u << random.below(8)));
  return true;
}

// ------------------------------------------------------------------ tool

Cluster_sim::Tool::Tool(Sim_world& the_world, std::vector<Address> mds_servers)
    : world(the_world),
      node(world.add_node("tool", Role::tool, {0x20})),
      probe(world.add_node("probe", Role::cs, {0x21})) {
  client::Mds_session_options options;
  options.servers = std::move(mds_servers);
  options.name = "tool";
  options.host = {0x20};
  session =
      std::make_unique<client::Mds_session>(node, node, world.random(), world, std::move(options));
  node.start({session.get()});
  probe.start({});
}

Cluster_sim::Tool::~Tool() {
  node.stop(true);
  probe.stop(true);
}

std::optional<proto::File_map> Cluster_sim::Tool::fetch_map(Cluster_sim& sim) {
  proto::Mds_request lookup;
  lookup.mutable_lookup()->set_path("/volumes/v");
  auto const found = sim.ask(std::move(lookup));
  if (found.status() != 0) return std::nullopt;
  proto::Mds_request request;
  request.mutable_get_map()->set_file(found.file().id());
  auto const reply = sim.ask(std::move(request));
  if (reply.status() != 0) return std::nullopt;
  return reply.map();
}

namespace {

/// Asks one question of a chunk server, as a peer CS.
class Probe final : public Connection_handler {
 public:
  Probe(Sim_node& node, Address const& server, Message question)
      : node_(node), question_(std::move(question)), connection_(node.connect(server, *this)) {}
  ~Probe() override { node_.close(connection_); }

  void on_connected(Connection_id connection, Peer_info const&) override {
    node_.send(connection, std::move(question_));
  }
  void on_message(Connection_id, Message& message) override {
    if (message.header.is_reply) answer = std::move(message);
  }
  void on_disconnected(Connection_id, Failure const&) override { is_lost = true; }

  std::optional<Message> answer;
  bool is_lost = false;

 private:
  Sim_node& node_;
  Message question_;
  Connection_id connection_;
};

}  // namespace

std::optional<std::vector<Block_record>> Cluster_sim::Tool::fetch_table(Cluster_sim& sim,
                                                                        Cs_host& host,
                                                                        proto::Chunk const& chunk,
                                                                        std::uint32_t chunk_bytes) {
  Message question;
  question.header.operation = Operation::table;
  question.header.request_id = 1;
  question.header.chunk = {chunk.chunk()};
  question.header.length = chunk_bytes;
  Probe asking(probe, host.address(), std::move(question));
  sim.run_until([&] { return asking.answer.has_value() || asking.is_lost; },
                std::chrono::seconds(10));
  if (!asking.answer.has_value() || asking.answer->header.status != Errc::ok) return std::nullopt;
  std::vector<Block_record> table(chunk_bytes / block_bytes);
  if (asking.answer->meta.size() != table.size() * sizeof(Block_record)) return std::nullopt;
  std::memcpy(table.data(), asking.answer->meta.data(), asking.answer->meta.size());
  return table;
}

}  // namespace pstorage::sim
