// A whole simulated cluster: the product's MDS, chunk servers and clients on virtual hosts, a
// volume that two clients fight for, and everything that can go wrong with them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cs/chunk_server.h"
#include "mds/server/metadata_server.h"
#include "tests/sim/sim_client.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_world.h"

namespace pstorage::sim {

/// Drawn from the seed.
struct Cluster_plan {
  std::uint32_t metadata_servers = 3;
  std::uint32_t servers = 3;
  std::uint32_t clients = 2;
  std::uint32_t norm = 3;
  std::uint32_t min = 1;
  std::uint32_t chunks = 3;
  std::uint32_t chunk_bytes = 64 << 10;
  bool power_losses = false;  // unsynced data is lost, also on all hosts at once
  bool rot = false;           // bits flip on one chunk server
  bool steals = false;        // the second client takes the lease by force
  bool drift = false;         // clocks run up to 5 % fast or slow
  bool healing = false;     // servers are removed, replicas= changes, the silent are replaced soon
  bool slow_disk = false;   // that, and nothing else
  bool full_disks = false;  // likewise; writes wait for room
  bool compares = false;    // clients have replicas compared at any time (pstorage check --repair)
  bool sharing = false;     // clients give the volume back by themselves, and many read it at once
  bool caching = false;     // clients have read caches
  bool stalled_deaths = false;  // everybody dies while the disks do not answer
  bool late_reports = false;    // the MDS reads of a failed server when it has long come back
  bool deserters = false;       // holders die whom some servers no longer heard
  bool absences = false;        // all users die, and come when a chunk server settles the volume
  bool leaves = false;          // in the end the users are gone, and the volume must heal without
  Duration settle_after = std::chrono::seconds(30);  // of all metadata servers
  Duration session_timeout =
      std::chrono::seconds(10);  // of all metadata servers: clients rely on it
  Duration chaos = std::chrono::seconds(20);
  unsigned fault_mean_ms = 800;
};

Cluster_plan draw_plan(Sim_random& random);

struct Run_result {
  std::string fault;  // empty: everything held
  std::uint64_t hash = 0;
  std::uint64_t events = 0;
  std::uint64_t operations = 0;
  double virtual_seconds = 0;
};

class Cluster_sim {
 public:
  Cluster_sim(std::uint64_t seed, bool verbose);
  ~Cluster_sim();
  Cluster_sim(Cluster_sim const&) = delete;
  Cluster_sim& operator=(Cluster_sim const&) = delete;

  Run_result run();

 private:
  struct Mds_host;
  struct Cs_host;
  struct Tool;
  struct Aim {
    Operation operation = Operation::write;
    std::uint32_t length_min = 0;  // of a write
    bool everybody = false;
    bool power = false;
    Duration delay{};
    Time_point until;
  };

  void start_mds(Mds_host& host);
  void start_cs(Cs_host& host);
  void stop_mds(Mds_host& host, bool power);
  Mds_host& some_mds();
  std::vector<Address> mds_addresses() const;
  void stop_cs(Cs_host& host, bool power);
  void restart_later(std::function<void()> start);
  bool make_cluster();
  bool make_metadata_server(std::uint32_t number);
  bool make_chunk_server(std::size_t index);
  bool make_volume();
  proto::Mds_reply ask(proto::Mds_request request);

  void chaos();
  void one_fault();
  void kill_everything();
  void power_off_everything();
  void partition();
  void pause_somebody();
  void rot_something();
  void heal();
  void run_for(Duration time);
  bool run_until(std::function<bool()> const& condition, Duration patience);

  // sim_aimed.cc
  void plan_targets(std::uint64_t seed);
  void aim();
  void sent(Sim_node const& from, Message const& message);
  void kill_while_disks_stall();
  void delay_report(Sim_node const& from, Message const& message);
  void isolate_client();
  void desert();
  void be_absent();

  // sim_healing.cc
  void begin_healing();
  void administer();
  void release_somebody();
  void change_replicas();
  void leave();
  void set_replicas(std::uint32_t norm, std::uint32_t min);
  void tell(proto::Mds_request request, std::function<void(bool accepted)> done);
  bool has_orphans();

  void full_disks();  // sim_full.cc

  // sim_slow.cc
  void slow_disk();
  void check_minimum();
  void check_events();

  void settle();
  bool all_in_sync();
  std::string tell_map();
  void read_back();
  void compare_replicas();
  void fail(std::string const& what);

  Sim_world world_;
  Cluster_plan plan_;
  std::vector<std::unique_ptr<Mds_host>> mds_;
  std::vector<std::unique_ptr<Cs_host>> servers_;
  std::vector<std::unique_ptr<Sim_client>> clients_;
  std::vector<Sim_node*> client_nodes_;
  std::unique_ptr<Tool> tool_;
  Ledger ledger_;
  std::optional<Aim> aim_;
  Time_point next_late_report_{};
  bool calm_ = false;                 // no faults any more
  std::set<std::uint32_t> released_;  // asked for, and not taken back
  std::uint32_t told_ = 0;            // administrator's commands without an answer
  std::string fault_;
};

}  // namespace pstorage::sim
