// The daemons of a simulated cluster: the product's classes on virtual hosts with simulated disks.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/client/mds_session.h"
#include "tests/sim/cluster_sim.h"

namespace pstorage::sim {

struct Cluster_sim::Mds_host {
  explicit Mds_host(Sim_world& the_world);
  ~Mds_host();
  /// Empty, or why it does not start.
  std::string start();
  void stop(bool power);
  bool is_running() const { return server != nullptr; }
  Address address() const { return {.host = "mds", .port = 2511, .unix_path = {}}; }

  Sim_world& world;
  Sim_node& node;
  Sim_disk disk;
  std::unique_ptr<mds::Metadata_server> server;
};

struct Cluster_sim::Cs_host {
  Cs_host(Sim_world& the_world, Cs_id its_id, Host_id host);
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
  Sim_node& node;
  Sim_disk disk;
  cs::Repository_identity identity;
  std::unique_ptr<cs::Chunk_server> server;
};

/// The administrator's host, also looking at replicas as another CS would.
struct Cluster_sim::Tool {
  explicit Tool(Sim_world& the_world);
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
