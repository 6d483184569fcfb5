// Simulated Raft clusters under faults: one 64-bit seed is one run, and every event is checked.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/mds/raft/raft_process.h"
#include "tests/mds/raft/register_history.h"

namespace pstorage::mds::raft {

struct Run_result {
  std::string fault;  // empty: all held
  std::uint64_t hash = 0;
  std::uint64_t operations = 0;
  double virtual_seconds = 0;
};

/// What a seed is made of.
struct Sim_plan {
  std::size_t voters = 3;
  bool is_datagram = false;  // messages are lost, repeated and overtake each other
  unsigned loss_percent = 0;
  unsigned repeat_percent = 0;
  Duration latency_max = std::chrono::milliseconds(2);
  Duration sync_max = std::chrono::milliseconds(5);
  std::uint64_t snapshot_every = 0;
  bool has_changes = false;  // of the membership
  bool has_drift = false;
  unsigned fault_percent = 0;   // a nemesis turn does something
  unsigned strike_percent = 0;  // crashes aimed at protocol events
  unsigned late_percent = 0;    // acknowledgements that are held back until a term begins
  unsigned clients = 3;
  std::size_t append_bytes_max = 1u << 20;
};

class Raft_sim final : private Process_host {
 public:
  Raft_sim(std::uint64_t seed, bool is_verbose);
  Run_result run();

 private:
  struct Client {
    bool is_busy = false;
    std::uint64_t asked = 0;  // operations so far
    Member_id target;
  };

  // raft_sim.cc
  void add_process(Member_id id, Configuration first);
  void schedule_tick(Member_id id, double rate);
  void heal_and_check();
  std::string laggard();
  static std::string describe(Raft_core const& core, Member_id member);
  bool has_lost_a_majority() const;
  void mix(std::uint64_t value);
  Raft_process* leader();
  Raft_process* any_up();

  // sim_clients.cc
  void client_turn(std::size_t number);
  void reach(Raft_process& process, std::function<void()> ask);
  void client_write(Client& client, Raft_process& process, unsigned key);
  void client_read(Client& client, Raft_process& process, unsigned key);

  // sim_network.cc
  void send(Raft_message message) override;
  void deliver_later(Raft_message message);
  void deliver(Raft_message const& message, std::uint64_t epoch);
  void stream(Member_id from, Member_id to, Image image) override;
  void stream_done(Member_id from, Member_id to, Image const& image, std::uint64_t term);
  bool is_cut(Member_id from, Member_id to) const { return cuts_.contains({from, to}); }
  void release_late();

  // sim_faults.cc
  bool strikes(Raft_core const& core, Ready const& ready) override;
  void trace(Member_id member, std::string const& what) override;
  void nemesis();
  void partition();
  void crash_for_a_while(Raft_process& process);
  void change_members();
  void replace_wiped(Raft_process& process);
  void fill_disk(Raft_process& process);
  void pause(Member_id id);
  bool is_paused(Member_id id, Duration& left) const;

  std::uint64_t const seed_;
  bool const is_verbose_;
  sim::Event_queue queue_;
  sim::Sim_random random_;
  Sim_plan plan_;
  Raft_checker checker_;
  Register_history history_{checker_};
  std::map<Member_id, std::unique_ptr<Raft_process>> processes_;
  std::map<Member_id, std::uint64_t> terms_;  // as last seen
  std::set<Member_id> gone_;                  // wiped: never to come back
  std::uint64_t next_member_ = 1;
  std::vector<Client> clients_;
  std::uint64_t next_value_ = 1;
  std::uint64_t acknowledged_ = 0;
  std::uint64_t operations_ = 0;

  bool has_rotten_ = false;                 // once a run: two might leave no majority
  std::map<Member_id, Time_point> paused_;  // until when
  std::set<std::pair<Member_id, Member_id>> cuts_;
  std::map<std::pair<Member_id, Member_id>, Time_point> last_arrival_;
  std::vector<Raft_message> late_;
  std::uint64_t epoch_ = 0;  // of connections: messages of an earlier one are lost
  bool is_calm_ = false;     // no faults any more
  std::uint64_t hash_ = 0xcbf29ce484222325ULL;
};

}  // namespace pstorage::mds::raft
