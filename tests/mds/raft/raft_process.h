// A simulated metadata server reduced to its Raft: core, log on a simulated disk, a small state
// machine, and the shell that carries Readys out.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mds/raft/raft_core.h"
#include "mds/raft/raft_log.h"
#include "tests/mds/fakes.h"
#include "tests/mds/raft/raft_checker.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_world.h"

namespace pstorage::mds::raft {

inline constexpr unsigned keys_max = 4;

/// Registers; what SQLite is in the product.
struct Registers {
  struct Value {
    std::uint64_t index = 0;  // of the entry that wrote it; 0 = never written
    std::string command;
  };
  std::uint64_t applied = 0;
  std::array<Value, keys_max> values;
};

/// "3 17": register 3 becomes 17.
std::string make_command(unsigned key, std::uint64_t value);

/// A streamed snapshot.
struct Image {
  Snapshot snapshot;
  Registers registers;
};

/// What a process asks of the world around it.
class Process_host {
 public:
  virtual ~Process_host() = default;
  virtual void send(Raft_message message) = 0;
  virtual void stream(Member_id from, Member_id to, Image image) = 0;
  /// A Ready has been taken, nothing of it was carried out. True: the power fails now.
  virtual bool strikes(Raft_core const& core, Ready const& ready) = 0;
  virtual void trace(Member_id member, std::string const& what) = 0;
};

/// ok: took effect, was answered. Otherwise nothing is known.
using Write_done = std::function<void(bool is_ok, std::uint64_t index)>;
using Read_done = std::function<void(bool is_ok, Registers const& registers)>;

class Raft_process final : private Raft_log_listener {
 public:
  struct Options {
    Core_options core;
    Raft_log_options log;
    Duration sync_time = std::chrono::milliseconds(1);
    std::uint64_t snapshot_every = 0;  // entries; 0: the log is never cut
  };
  Raft_process(sim::Event_queue& queue, sim::Sim_random& random, Raft_checker& checker,
               Process_host& host, Options options);

  Member_id id() const { return options_.core.id; }
  bool is_up() const { return core_ != nullptr; }
  Raft_core& core() { return *core_; }
  Raft_core const& core() const { return *core_; }
  Registers const& registers() const { return registers_; }

  void start();
  /// The power fails: unsynced writes are kept, torn or lost. Or only the process dies.
  void crash();
  sim::Sim_disk& disk() { return disk_; }
  /// While it is down: damages a frame that is not the last one. False: there is none.
  bool rot();

  void tick();
  void receive(Raft_message message);
  void write(std::string command, Write_done done);
  void read(Read_done done);
  Result<std::uint64_t> change(Change const& change);
  void transfer(Member_id to);
  /// A snapshot that `leader` sent in `term` is here. True if it was installed.
  bool install(Image const& image, Member_id leader, std::uint64_t term);
  void snapshot_sent(Member_id peer, bool is_ok);

 private:
  struct Waiting_read {
    std::uint64_t index = 0;
    Read_done done;
  };
  void on_persisted(std::uint64_t token) override;
  void on_raft_log_failed(Failure const& why) override;
  void bury();
  void turn();
  void carry_out(Ready ready);
  void apply(std::vector<Log_entry> const& entries);
  void finish_reads(std::vector<Read_state> const& states);
  void answer_reads();
  void cut_log();
  void forget_clients();

  sim::Event_queue& queue_;
  sim::Sim_random& random_;
  Raft_checker& checker_;
  Process_host& host_;
  Options const options_;
  Quiet_log quiet_;
  sim::Sim_disk disk_;
  std::unique_ptr<Raft_log> log_;
  std::unique_ptr<Raft_log> dead_log_;  // perhaps on the stack still
  bool is_power_lost_ = false;
  std::unique_ptr<Raft_core> core_;
  std::uint64_t life_ = 0;
  std::uint64_t led_term_ = 0;
  std::deque<std::pair<std::uint64_t, std::vector<Raft_message>>> unsent_;  // until the token
  Registers registers_;
  Registers checkpoint_;                            // as durable
  std::optional<Snapshot> installing_;              // durable, too
  std::map<std::uint64_t, Write_done> writes_;      // by index
  std::map<std::uint64_t, Read_done> asked_reads_;  // by id
  std::vector<Waiting_read> reads_;                 // until applied
};

}  // namespace pstorage::mds::raft
