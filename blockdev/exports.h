// The volumes that are open now, shared by the connections that use them. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "blockdev/volume_provider.h"
#include "core/env/clock.h"
#include "core/log.h"
#include "core/metrics/histogram.h"
#include "core/net/rate_limit.h"

namespace pstorage::nbd {

/// Rule: a volume named at start stays open until the end; any other is opened for its first client
/// and closed, with its lease given back, when its last client has been gone for `idle_close`.
/// Thread: the server's loop.
class Exports final : public Ticker {
 public:
  static constexpr Duration idle_close = std::chrono::seconds(2);

  using Acquired = std::function<void(Outcome<client::Volume*>)>;

  /// `names`: export only these, and keep them open; empty: all the provider has.
  Exports(Volume_provider& provider, Clock& clock, Log& log, std::vector<std::string> names);
  ~Exports() override;

  /// Opens the volumes named at start; the first failure, or success when all are open.
  void open_named(std::function<void(Outcome<void>)> done);
  /// What may be asked for. Failures as Volume_provider.
  void list(List_done done);
  /// `name` empty: the only volume named at start.
  void describe(std::string const& name, Describe_done done);
  /// Opens or shares it; each success needs one release(). May answer from inside. Sharing also
  /// asks whether the volume has grown meanwhile, without waiting: the next client gets the new
  /// size.
  void acquire(std::string const& name, Acquired done);
  void release(client::Volume const& volume);
  /// Its lease is gone: nobody gets it any more, and it is opened anew for the next client.
  void mark_lost(client::Volume const& volume);
  /// Drops all volumes as a crash would: no callback of theirs comes any more.
  void abandon_all();
  /// Flushes and closes all; `done` when all have answered. Nothing can be acquired any more.
  void close_all(std::function<void()> done);

  /// What was asked of a volume since the start, by all its clients.
  struct Io {
    Io_counters reads, writes, flushes, discards;
    std::uint64_t errors = 0;
  };
  /// Of an acquired volume; stays where it is.
  Io& io_of(client::Volume const& volume);
  /// By name; of all volumes that were ever acquired, at most io_max.
  std::map<std::string, Io> const& io() const { return io_; }

  /// Which volumes' requests wait, and why; empty: none do.
  std::string trouble() const;

  void on_tick() override;

 private:
  static constexpr std::size_t io_max = 10'000;

  struct Export {
    enum class State { opening, open, closing };
    State state = State::opening;
    std::unique_ptr<client::Volume> volume;
    std::size_t users = 0;
    bool asks_size = false;
    bool lost = false;  // another client has taken it over; opened anew for the next client
    Time_point idle_since{};
    std::vector<Acquired> waiting;  // for the open, or for the close to be over
  };

  bool is_named(std::string const& name) const { return named_.contains(name); }
  Outcome<std::string> real_name(std::string const& name) const;
  void start_open(std::string const& name);
  void ask_size(std::string const& name);
  void opened(std::string const& name, Outcome<std::unique_ptr<client::Volume>> volume);
  void start_close(std::string const& name);
  void closed(std::string const& name, Result<void> result);
  Export* find(client::Volume const& volume, std::string const** name);
  void check_all_closed();

  Volume_provider& provider_;
  Clock& clock_;
  Log& log_;
  std::set<std::string> named_;
  std::map<std::string, Export> exports_;  // ordered: its order must not depend on hashes
  std::vector<std::unique_ptr<client::Volume>> dead_;  // closed; destroyed at the next tick
  std::map<std::string, Io> io_;
  Io io_of_others_;  // beyond io_max
  std::function<void()> all_closed_;
  bool closing_all_ = false;
  Rate_limit refusals_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pstorage::nbd
