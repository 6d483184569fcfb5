// The one connection of this process to one chunk server: requests under way, silence detection,
// reconnects. Shared by all open files.
#pragma once

#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/address.h"
#include "core/client/latency_watch.h"
#include "core/env/clock.h"
#include "core/env/network.h"
#include "core/log.h"
#include "core/metrics/histogram.h"
#include "cs.pb.h"
#include "mds.pb.h"

namespace pstorage::client {

class Cs_link;
struct Cs_op;

/// Who asked. Exactly one of the two is called for every op that was not cancelled.
class Cs_op_owner {
 public:
  virtual ~Cs_op_owner() = default;
  virtual void on_cs_reply(Cs_op& op, Message& reply) = 0;
  /// The connection was lost before the answer; the outcome is unknown.
  virtual void on_cs_lost(Cs_op& op) = 0;
};

/// One request under way on a link.
struct Cs_op : boost::intrusive::list_base_hook<> {
  Cs_op_owner* owner = nullptr;  // null: cancelled
  void* context = nullptr;       // the owner's
  Cs_link* link = nullptr;
  Operation operation = Operation::control;
  Time_point sent{};
  std::uint32_t slot = 0;
  std::uint32_t generation = 0;
};

/// Hears of a link coming up and going down (after on_cs_lost of every op of it).
class Cs_link_user {
 public:
  virtual ~Cs_link_user() = default;
  virtual void on_link_up(Cs_link& link) = 0;
  virtual void on_link_down(Cs_link& link) = 0;
};

struct Cs_link_options {
  Duration ping_after = std::chrono::milliseconds(700);    // of silence while something is asked
  Duration silence_max = std::chrono::milliseconds(2000);  // then the CS counts as dead
  Duration request_max = std::chrono::seconds(10);         // a live CS whose disk hangs
  Duration connect_max = std::chrono::milliseconds(1500);  // connect and handshake
  Duration retry_min = std::chrono::milliseconds(100);
  Duration retry_max = std::chrono::milliseconds(1000);
};

/// Thread: the owner's loop.
class Cs_link final : private Connection_handler, private Cs_op_owner {
 public:
  enum class State { idle, connecting, up, down };

  /// `latency`: of this server; lives longer.
  Cs_link(Clock& clock, Network& network, Log& log, Cs_id id, Host_id own_host,
          Cs_link_options const& options, Latency_watch::Server& latency);
  ~Cs_link() override;
  Cs_link(Cs_link const&) = delete;
  Cs_link& operator=(Cs_link const&) = delete;

  Cs_id id() const { return id_; }
  State state() const { return state_; }
  bool is_up() const { return state_ == State::up; }
  /// The last attempt to reach it failed (and the next one has not succeeded yet).
  bool is_unreachable() const { return failed_attempt_ && state_ != State::up; }
  std::string const& last_failure() const { return last_failure_; }
  bool is_local() const { return is_local_; }
  std::size_t in_flight() const { return in_flight_.size(); }
  Duration read_latency() const { return read_latency_; }
  /// Answers since the start.
  Latency_histogram const& reads() const { return reads_; }
  Latency_histogram const& writes() const { return writes_; }
  Latency_watch::Server const& latency() const { return latency_; }
  Latency_watch& watch() const { return latency_.watch(); }
  /// Tells the watch how old the oldest unanswered requests are.
  void note_ages(Time_point now);

  /// Where it can be reached now; forgets failures when that is news.
  void set_addresses(proto::Cs_address const& addresses);
  void add_user(Cs_link_user& user);
  void remove_user(Cs_link_user& user);
  /// Starts to connect unless connected or on the way.
  void want();
  /// There is news that it can be reached (the MDS hears it): forgets failures, tries at once.
  void try_again();

  /// Sends a request; is_up() must hold. The op is owned by the link and dies after its callback.
  Cs_op& submit(Message message, Cs_op_owner& owner, void* context);
  Cs_op& submit(proto::Cs_request const& request, Cs_op_owner& owner, void* context);
  /// As submit, for rare requests: `done` gets the reply, or null when the connection was lost.
  void call(Message message, std::function<void(Message* reply)> done);
  void call(proto::Cs_request const& request, std::function<void(Message* reply)> done);
  /// The answer will be dropped.
  static void cancel(Cs_op& op) { op.owner = nullptr; }

  void on_tick();
  /// Drops the connection as if it had broken: an answer made no sense.
  void fail(std::string const& why);

 private:
  using Ops = boost::intrusive::list<Cs_op>;

  void on_connected(Connection_id connection, Peer_info const& peer) override;
  void on_message(Connection_id connection, Message& message) override;
  void on_disconnected(Connection_id connection, Failure const& why) override;
  void on_cs_reply(Cs_op&, Message&) override {}  // of a ping
  void on_cs_lost(Cs_op&) override {}

  void connect();
  void go_down(std::string const& why, bool silent = false);
  void release(Cs_op& op);
  void note_answer(Cs_op const& op);
  Address next_address();

  Clock& clock_;
  Network& network_;
  Log& log_;
  Cs_id const id_;
  Host_id const own_host_;
  Cs_link_options const& options_;
  Latency_watch::Server& latency_;

  std::vector<Address> addresses_;  // unix sockets of this host first
  std::size_t address_index_ = 0;
  State state_ = State::idle;
  bool failed_attempt_ = false;
  bool is_local_ = false;
  Connection_id connection_{};
  Time_point connect_started_{};
  Time_point retry_at_{};
  Duration retry_delay_{};
  Time_point last_heard_{};
  Time_point last_tick_{};
  Time_point resumed_at_{};
  bool pinging_ = false;
  std::string last_failure_;
  Duration read_latency_{};
  Latency_histogram reads_, writes_;

  std::vector<Cs_link_user*> users_;
  std::vector<std::unique_ptr<Cs_op>> slots_;
  std::vector<std::uint32_t> free_slots_;
  Ops in_flight_;  // oldest first
};

}  // namespace pstorage::client
