// The daemons of a simulated cluster: the product's classes on virtual hosts with simulated disks.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/client/mds_session.h"
#include "mds/raft/raft_node.h"
#include "tests/sim/cluster_sim.h"

namespace pstorage::sim {

struct Cluster_sim::Mds_host {
  /// `number` from 1; `first`: the members that the log begins with.
  Mds_host(Sim_world& the_world, std::uint32_t its_number, mds::raft::Configuration its_first,
           Cluster_plan const& plan);
  ~Mds_host();
  static Address address_of(std::uint32_t number, std::uint16_t port = 2511);
  /// Empty, or why it does not start.
  std::string start();
  void stop(bool power);
  bool is_running() const { return server != nullptr; }
  bool leads() const { return entries != nullptr && entries->is_leader(); }

  Sim_world& world;
  std::uint32_t const number;
  mds::raft::Configuration const first;
  Duration const session_timeout;
  Duration const settle_after;
  Sim_node& node;
  Sim_disk disk;
  std::unique_ptr<mds::raft::Raft_node> entries;
  std::unique_ptr<mds::Metadata_server> server;
};

struct Cluster_sim::Cs_host {
  Cs_host(Sim_world& the_world, Cs_id its_id, Host_id host, std::vector<Address> its_mds_servers);
  ~Cs_host();
  std::string make_repository();
  std::string start();
  void stop(bool power);
  bool is_running() const { return server != nullptr; }
  Address address() const { return {.host = node.name(), .port = 3000, .unix_path = {}}; }
  /// Inverts a bit somewhere in a chunk file's data; false when there is none.
  bool flip_data(Sim_random& random);

  Sim_world& world;
  Cs_id id;
  std::vector<Address> const mds_servers;
  Sim_node& node;
  Sim_disk disk;
  cs::Repository_identity identity;
  std::unique_ptr<cs::Chunk_server> server;
};

/// The administrator's host, also looking at replicas as another CS would.
struct Cluster_sim::Tool {
  Tool(Sim_world& the_world, std::vector<Address> mds_servers);
  ~Tool();
  std::optional<proto::File_map> fetch_map(Cluster_sim& sim);
  std::optional<std::vector<Block_record>> fetch_table(Cluster_sim& sim, Cs_host& host,
                                                       proto::Chunk const& chunk,
                                                       std::uint32_t chunk_bytes);

  Sim_world& world;
  Sim_node& node;
  Sim_node& probe;
  std::unique_ptr<client::Mds_session> session;
};

}  // namespace pstorage::sim
