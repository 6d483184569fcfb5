// Raft nodes on simulated hosts: network, disks and clocks of tests/sim, a state machine of words.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mds/raft/raft_node.h"
#include "tests/mds/fakes.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_world.h"

namespace pstorage::mds::raft {

struct Words_state {
  std::uint64_t applied = 0;
  std::vector<std::string> words;
};

/// What any member has ever handed out.
struct Ledger {
  std::map<std::uint64_t, std::string> words;  // by index
  std::string fault;
};

/// A metadata server with nothing but its log.
class Node_host final : public Log_listener,
                        public Ticker,
                        public Turn_hook,
                        public Snapshot_source {
 public:
  Node_host(sim::Sim_world& world, Ledger& ledger, std::uint64_t id, Configuration first);
  ~Node_host() override;

  /// Empty, or why not.
  std::string start();
  void crash();
  bool is_up() const { return node_ != nullptr; }
  Raft_node& node() { return *node_; }
  sim::Sim_node& host() { return host_; }
  sim::Sim_disk& disk() { return disk_; }

  void on_committed(std::vector<Committed_entry> entries) override;
  void on_log_failed(Failure const& why) override { failure_text = why.text; }
  void on_leadership(bool leads) override { leaderships.push_back(leads); }
  void on_tick() override;
  void on_turn_end() override { node_->flush(); }
  void open(Opened done) override;

  /// Makes the state durable and cuts the log below it.
  void checkpoint();
  /// Proposes as an event of the process. Empty, or why not.
  std::string propose(std::string const& word);

  Raft_node_options options;
  Words_state state;
  Words_state saved;
  std::vector<bool> leaderships;
  std::string failure_text;
  std::uint64_t snapshots_installed = 0;
  bool crashes_when_installed = false;

 private:
  Outcome<void> load_state();

  sim::Sim_world& world_;
  Ledger& ledger_;
  Quiet_log log_;
  sim::Sim_node& host_;
  sim::Sim_disk disk_;
  std::unique_ptr<File_snapshot_sink> sink_;
  std::unique_ptr<Raft_node> node_;
  unsigned ticks_ = 0;
};

class Node_bench {
 public:
  explicit Node_bench(std::size_t voters, std::uint64_t seed = 1);
  static std::string address_of(std::uint64_t id) {
    return "10.0.0." + std::to_string(id) + ":2510";
  }

  Node_host& host(std::uint64_t id) { return *hosts_.at(id); }
  /// A host with an empty repository that knows nobody.
  Node_host& add(std::uint64_t id);
  void run(Duration time) { world_.queue().run_until(world_.now() + time); }
  template <typename Condition>
  bool run_until(Condition condition, Duration patience = std::chrono::seconds(20)) {
    auto const end = world_.now() + patience;
    while (!condition()) {
      if (world_.now() >= end) return false;
      run(std::chrono::milliseconds(10));
    }
    return true;
  }
  /// The one that leads, once there is one.
  std::uint64_t leader();
  void isolate(std::uint64_t id);
  void heal() { world_.heal(); }
  /// Proposes at the leader; true once it has handed the word out.
  bool commit(std::string const& word);
  bool all_have(std::vector<std::string> const& words);
  /// Do all that are up have the same, and everything in the ledger?
  bool agree();
  Ledger const& ledger() const { return ledger_; }

 private:
  sim::Sim_world world_;
  Ledger ledger_;
  std::map<std::uint64_t, std::unique_ptr<Node_host>> hosts_;
};

}  // namespace pstorage::mds::raft
