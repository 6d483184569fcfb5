// A simulated client host: opens the one volume, works on it, and keeps the books of what it did.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/client/cluster.h"
#include "core/client/ssd_cache.h"
#include "tests/sim/history.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_world.h"

namespace pstorage::sim {

/// Everything that all clients of a run did to the volume, block by block.
class Ledger {
 public:
  explicit Ledger(std::size_t blocks) : blocks_(blocks) {}

  std::vector<Block_history>& blocks() { return blocks_; }
  std::uint64_t next_value() { return ++last_value_; }
  void power_lost(Moment when) {
    power_losses_.push_back(when);
    last_power_loss_ = when;
  }
  /// A dead writer's volume was taken without servers that nobody can reach: they may have had the
  /// only copy of what others have lost with their power, and nobody had flushed.
  void left_servers_behind(Moment when) {
    if (!power_losses_.empty()) power_losses_.push_back(when);
  }
  /// A chunk server was killed, or replicas are given up by the administrator.
  void server_left(Moment when) { last_left_ = when; }
  /// A client has found, and will tell with the next flush, that every replica it still has lost
  /// unflushed writes with its power. Until then it may have read them from one that has left.
  void losses_found(Moment when);
  /// A client has taken the volume: from now on nothing of an older epoch may be acknowledged.
  void taken(std::uint32_t epoch, Moment when);
  /// Was a change that began at `start` under `epoch` acknowledged after the fence?
  void acknowledged(std::uint32_t epoch, Moment start);
  /// The first broken promise; empty: none.
  std::string check() const;
  /// Notes a fault that was seen at once (torn block, wrong error).
  void fault(std::string const& what) {
    if (fault_.empty()) fault_ = what;
  }
  /// A mixture was read: legal only after a power loss that an unflushed write may not survive.
  void torn_read(std::size_t block);
  std::uint64_t operations = 0;
  bool verbose = false;  // check() also tells the block's whole history

 private:
  static std::string tell(Block_history const& history);
  std::vector<Block_history> blocks_;
  std::vector<Moment> power_losses_;
  Moment last_power_loss_ = 0;
  Moment last_left_ = never;
  std::uint64_t last_value_ = 0;
  std::uint32_t taken_epoch_ = 0;
  Moment taken_at_ = never;
  std::string fault_;
};

/// One 4096-byte block that carries `value` in every word, so that a mixture shows.
void fill_block(std::byte* to, std::uint64_t value);
/// The value of a block written by fill_block (0: zeros); nothing when it is a mixture.
std::optional<std::uint64_t> block_value(std::byte const* from);

struct Sim_client_options {
  std::string path = "/volumes/v";
  std::size_t depth = 6;  // requests at a time
  std::uint32_t chunk_bytes = 64 << 10;
  bool rot_allowed = false;  // corrupt is a legal answer
  Duration open_patience = std::chrono::seconds(5);
  bool steals = false;    // opens by force
  bool compares = false;  // has the replicas of a chunk compared now and then
  bool shares = false;    // gives it back now and then, or only reads it, beside others
  bool caches = false;    // keeps what it reads on a disk of its own, across its deaths
};

class Sim_client final : private Ticker {
 public:
  Sim_client(Sim_world& world, Sim_node& node, Ledger& ledger, std::vector<Address> servers,
             Sim_client_options options);
  ~Sim_client() override;
  Sim_client(Sim_client const&) = delete;
  Sim_client& operator=(Sim_client const&) = delete;

  void start();
  /// kill -9 or power failure: what was under way stays unanswered.
  void kill(bool silently);
  bool is_running() const { return cluster_ != nullptr; }
  /// No new requests from now on; is_quiet() once the old ones are answered.
  void quiesce() { quiescing_ = true; }
  /// Only reads from now on, each block once, from the first to the last.
  void read_only() { reading_all_ = true; }
  bool has_read_all() const { return next_read_ == ledger_.blocks().size(); }
  bool is_quiet() const { return in_flight_ == 0; }
  /// Its next attempt takes the volume by force.
  void steal_once() {
    steals_now_ = true;
    open_again_at_ = world_.now();
  }
  /// How long flushes that began in [from, to] took, the longest; one without an answer until now.
  Duration slowest_flush(Moment from, Moment to) const;
  bool has_volume() const { return volume_ != nullptr; }
  bool is_shared() const;
  /// Gives the volume back.
  void close();
  /// Since when the oldest unanswered request waits.
  std::string waiting_reason() const;

 private:
  struct Written {
    std::size_t block;
    std::size_t write;
    bool operator==(Written const&) const = default;
  };
  struct Timed {
    Moment start;
    Moment finish = never;
  };
  void on_tick() override;
  void open_cache();
  void open();
  void wanted();
  void opened(Outcome<std::unique_ptr<client::Volume>> outcome);
  void issue();
  void do_write(std::size_t first, std::size_t count, bool fua);
  void do_zero(std::size_t first, std::size_t count);
  void do_read(std::size_t first, std::size_t count);
  void do_flush();
  void do_compare(std::size_t block);
  void written(std::vector<Written> const& done, bool durable);
  void note_durable(std::vector<Written> const& covered);
  void note_error(std::error_code error, char const* what);
  void note_losses();
  Moment now() const { return world_.now().since_start.count(); }

  Sim_world& world_;
  Sim_node& node_;
  Ledger& ledger_;
  std::vector<Address> const servers_;
  Sim_client_options const options_;
  std::unique_ptr<Sim_disk> cache_disk_;
  std::uint64_t power_cycle_ = 0;  // of the host
  std::unique_ptr<client::Ssd_cache> cache_;
  std::unique_ptr<client::Cluster> cluster_;
  std::unique_ptr<client::Volume> volume_;
  std::uint32_t epoch_ = 0;
  std::uint64_t losses_ = 0;  // of the volume, that are noted
  std::uint64_t life_ = 0;    // answers to an earlier life are not ours
  bool steals_now_ = false;
  bool opening_ = false;
  bool dead_volume_ = false;
  bool giving_back_ = false;  // no new requests; closed when the old ones are answered
  bool closing_ = false;
  bool must_write_ = false;       // it cannot be shared as its last writer has left it
  bool only_makes_good_ = false;  // it is closed at once, and then shared
  bool quiescing_ = false;
  bool reading_all_ = false;
  std::size_t next_read_ = 0;
  Time_point open_again_at_{};
  Time_point issue_at_{};
  std::size_t in_flight_ = 0;
  std::vector<Timed> flushes_;
  std::vector<Written> unflushed_;  // answered, not yet covered by a flush
};

}  // namespace pstorage::sim
