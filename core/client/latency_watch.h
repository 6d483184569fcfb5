// Which chunk servers answer far slower than their peers, and when a read is worth asking a second
// time. Pure: answers and the age of what is unanswered go in, flags come out.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "core/env/clock.h"
#include "core/ids.h"

namespace pstorage::client {

/// Answers that are compared with one another.
enum class Answer_kind : unsigned char { read, change, flush };
inline constexpr std::size_t answer_kinds = 3;

struct Latency_rules {
  // A server lags when its answers take longer than this, and than a multiple of its peers' time.
  Duration lag_min = std::chrono::milliseconds(250);
  int lag_factor = 8;
  Duration change_patience = std::chrono::seconds(3);  // lagging so long: it is slow
  Duration read_patience = std::chrono::milliseconds(500);
  // A flag stays at least so long, twice as long when it comes again soon: no flapping.
  Duration flag_min = std::chrono::seconds(10);
  Duration flag_max = std::chrono::seconds(160);
  Duration peers_known = std::chrono::seconds(10);       // older figures of a peer say nothing
  Duration hedge_first = std::chrono::milliseconds(50);  // until there is a 99th percentile
  Duration hedge_min = std::chrono::milliseconds(10);
  Duration hedge_max = std::chrono::seconds(1);
  double hedge_share = 0.03;  // of all reads may be asked twice, and hedge_burst at once
  double hedge_burst = 16;
};

/// Thread: the owner's loop.
class Latency_watch {
 public:
  static constexpr Duration interval = std::chrono::milliseconds(100);

  /// One server's answers. Lives as long as the watch.
  class Server {
   public:
    explicit Server(Latency_watch& watch) : watch_(watch) {}
    /// An answer arrived after `took`.
    void answered(Answer_kind kind, Duration took) {
      Window& window = windows_[static_cast<std::size_t>(kind)];
      ++window.count;
      window.sum += took;
      if (kind == Answer_kind::read) watch_.note_read(took);
    }
    /// For how long the oldest unanswered request of this kind has been under way; zero: none.
    void set_oldest(Answer_kind kind, Duration age) {
      windows_[static_cast<std::size_t>(kind)].oldest = age;
    }
    /// A new process, or a new way to it: what was known of the old one says nothing.
    void restarted() { *this = Server(watch_); }
    /// It holds changes and flushes up that its peers have long answered.
    bool is_slow() const { return changes_.is_set; }
    /// Reads had better go to another replica.
    bool reads_lag() const { return reads_.is_set; }
    Latency_watch& watch() const { return watch_; }

   private:
    friend class Latency_watch;
    struct Window {  // since the last judgement
      std::uint32_t count = 0;
      Duration sum{0};
      Duration oldest{0};
      Duration usual{0};  // smoothed
      Time_point known{};
    };
    struct Flag {
      bool is_set = false;
      Duration lagged{0};  // how long, less the time it did not since
      Time_point evidence{};
      Time_point since{};  // set or cleared
      Duration stay{0};
    };
    enum class Verdict { none, fine, lags };
    static void note(Flag& flag, Verdict verdict, Duration patience, Time_point now,
                     Latency_rules const& rules);

    Server& operator=(Server const& other) {
      windows_ = other.windows_;
      changes_ = other.changes_;
      reads_ = other.reads_;
      return *this;
    }

    Latency_watch& watch_;
    std::array<Window, answer_kinds> windows_;
    Flag changes_;  // and flushes
    Flag reads_;
  };

  explicit Latency_watch(Latency_rules const& rules = {})
      : rules_(rules), hedges_left_(rules.hedge_burst), hedge_after_(rules.hedge_first) {}
  Latency_watch(Latency_watch const&) = delete;
  Latency_watch& operator=(Latency_watch const&) = delete;

  Server& server(Cs_id cs);
  /// Is it time to fill in set_oldest() and to judge()?
  bool is_due(Time_point now) const { return now - judged_ >= interval; }
  /// Compares the servers. A call that comes very late judges nobody: this process slept.
  void judge(Time_point now);

  /// A read older than this is worth a second question: the 99th percentile of late, in bounds.
  Duration hedge_after() const { return hedge_after_; }
  /// May one more read be asked twice? Counts it.
  bool take_hedge();

 private:
  using Verdict = Server::Verdict;
  static constexpr std::size_t buckets = 64;  // half powers of two of a microsecond

  void note_read(Duration took);
  Verdict verdict_of(Cs_id cs, Server const& server, std::size_t kind, Time_point now) const;
  Duration quantile(double share) const;
  void update_hedging();

  Latency_rules const rules_;
  std::map<Cs_id, std::unique_ptr<Server>> servers_;
  Time_point judged_{};
  std::array<std::uint32_t, buckets> reads_{};
  std::uint32_t reads_total_ = 0;
  double hedges_left_;
  Duration hedge_after_;
};

}  // namespace pstorage::client
