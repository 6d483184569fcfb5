// Virtual hosts, time and network of a simulated cluster. One 64-bit seed gives one run: nothing
// here or in the roles reads a real clock or draws real randomness.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/env/executor.h"
#include "core/env/network.h"
#include "core/env/random.h"
#include "core/log.h"
#include "tests/sim/sim_scheduler.h"

namespace pstorage::sim {

/// splitmix64: small, well distributed, the same everywhere.
class Sim_random final : public Random {
 public:
  explicit Sim_random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() override {
    state_ += 0x9e3779b97f4a7c15ULL;
    std::uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL;
    return mixed ^ (mixed >> 31);
  }
  bool percent(unsigned share) { return below(100) < share; }
  Duration between(Duration low, Duration high) {
    return low + Duration(below(static_cast<std::uint64_t>((high - low).count() + 1)));
  }

 private:
  std::uint64_t state_;
};

class Sim_world;

/// One process on one host: its clock, network, loop. What runs on it goes through run(), so that
/// a paused node does nothing and a dead one forgets.
class Sim_node final : public Clock, public Network, public Executor, public Sim_scheduler {
 public:
  Sim_node(Sim_world& world, std::string name, Role role, Host_id host);
  ~Sim_node() override;

  std::string const& name() const { return name_; }
  Host_id host() const { return host_; }
  bool is_up() const { return up_; }
  bool is_paused() const;

  // Clock: runs at its own rate, from its own start.
  Time_point now() const override;
  std::uint64_t wall_ms() const override;

  // Sim_scheduler for the node's disk: completions run as events of the node.
  void at(Duration delay, std::function<void()> work) override;

  // Network
  Connection_id connect(Address const& to, Connection_handler& handler) override {
    return connect_as(role_, to, handler);
  }
  Connection_id connect_as(Role role, Address const& to, Connection_handler& handler) override;
  Outcome<Address> listen(Address const& at, Connection_handler& handler) override;
  void send(Connection_id connection, Message message) override;
  void close(Connection_id connection) override;
  std::size_t queued_bytes(Connection_id) const override { return 0; }
  void set_turn_hook(Turn_hook* hook) override { hook_ = hook; }

  // Executor
  void defer(std::function<void()> work) override { deferred_.push_back(std::move(work)); }

  /// Starts the process: `tickers` are called every tick until stop().
  void start(std::vector<Ticker*> tickers);
  /// The process is gone; its owner destroys its objects right after. `silently`: as by a power
  /// failure, peers hear nothing until they send to the restarted host.
  void stop(bool silently);
  void pause_until(Time_point moment);
  void set_clock(double rate) { rate_ = rate; }
  /// Runs `work` as one event of this process: turn hook and deferred work follow.
  void run(std::function<void()> const& work);

 private:
  friend class Sim_world;
  void tick(std::uint64_t generation);

  Sim_world& world_;
  std::string const name_;
  Role const role_;
  Host_id const host_;
  double rate_ = 1.0;
  bool up_ = false;
  std::uint64_t generation_ = 0;
  Time_point paused_until_{};
  Turn_hook* hook_ = nullptr;
  std::vector<Ticker*> tickers_;
  std::deque<std::function<void()>> deferred_;
  std::map<std::string, Connection_handler*> listening_;
};

struct World_options {
  Duration latency_min = std::chrono::microseconds(20);
  Duration latency_max = std::chrono::microseconds(400);
  unsigned slow_percent = 1;  // messages that take up to slow_max
  Duration slow_max = std::chrono::milliseconds(30);
};

class Sim_world final : public Log {
 public:
  Sim_world(std::uint64_t seed, World_options options);

  Event_queue& queue() { return queue_; }
  Sim_random& random() { return random_; }
  Time_point now() const { return queue_.now(); }
  /// Of every event so far; equal for equal seeds.
  std::uint64_t hash() const { return hash_; }
  std::uint64_t events() const { return events_; }
  void mix(std::uint64_t value);

  Sim_node& add_node(std::string const& name, Role role, Host_id host);
  /// Messages from one to the other are held back until then.
  void cut(Sim_node const& from, Sim_node const& to, Time_point until);
  void heal();
  bool is_cut(Sim_node const& from, Sim_node const& to) const;
  /// Breaks a random connection in the middle: each end hears of it at its own time, and what was
  /// on its way may still arrive meanwhile.
  void break_connection();

  /// Sees every message as it is sent: for faults that are aimed at an event of the protocol.
  using Tap = std::function<void(Sim_node const& from, Message const& message)>;
  void set_tap(Tap tap) { tap_ = std::move(tap); }

  void write(Log_level level, std::string_view message, Fields fields) override;
  void set_verbose(bool verbose) { verbose_ = verbose; }

 private:
  friend class Sim_node;
  struct End {
    Sim_node* node = nullptr;
    std::uint64_t generation = 0;
    Connection_handler* handler = nullptr;
    Connection_id id;
    bool open = false;
    std::deque<std::pair<Time_point, Message>> inbox;  // on its way to this end
    bool delivering = false;
    Time_point last_arrival{};
  };
  struct Wire {
    End ends[2];
    Role role = Role::client;    // the caller's
    bool dead = false;           // nothing passes any more
    bool established = false;    // both ends have authenticated
    std::vector<Message> early;  // sent before that
  };

  Duration latency();
  void attempt(std::shared_ptr<Wire> const& wire, std::string address, int tries);
  void deliver(std::shared_ptr<Wire> const& wire, int to);
  void schedule_delivery(std::shared_ptr<Wire> const& wire, int to);
  void disconnect(std::shared_ptr<Wire> const& wire, int end, Duration delay, std::string why);
  static bool stands(End const& end);
  std::pair<std::shared_ptr<Wire>, int> find(Connection_id id);
  void drop_connections(Sim_node const& node, bool silently);

  Event_queue queue_;
  Sim_random random_;
  World_options const options_;
  std::uint64_t hash_ = 0xcbf29ce484222325ULL;
  std::uint64_t events_ = 0;
  std::uint64_t next_connection_ = 1;
  bool verbose_ = false;
  Tap tap_;
  std::vector<std::unique_ptr<Sim_node>> nodes_;
  std::map<Connection_id, std::pair<std::shared_ptr<Wire>, int>> wires_;
  std::map<std::string, std::pair<Sim_node*, Connection_handler*>> listeners_;
  std::map<std::pair<Sim_node const*, Sim_node const*>, Time_point> cuts_;  // until when
};

}  // namespace pstorage::sim
