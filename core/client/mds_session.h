// A conversation with the metadata servers: finds the master, opens a session, repeats requests
// until they are answered exactly once, keeps the session alive, hands out pushes.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/address.h"
#include "core/env/clock.h"
#include "core/env/network.h"
#include "core/env/random.h"
#include "core/log.h"
#include "mds.pb.h"

namespace pstorage::client {

struct Mds_session_options {
  std::vector<Address> servers;  // bootstrap list; never empty; the MDS tells of more
  std::string name;              // "csd[12]@host1", for people
  Host_id host;
  Duration try_timeout = std::chrono::seconds(2);  // one server's time to answer
  Duration heartbeat_interval = std::chrono::seconds(1);
  std::string first_server;  // Address::text() of the one to try first; empty: any
  /// Called when the MDS tells where all metadata servers are; may be null.
  std::function<void(std::vector<Address> const&)> on_servers;
};

using Mds_done = std::function<void(Outcome<proto::Mds_reply>)>;

/// Thread: the owner's loop. Callbacks never run inside the call that asked for them.
class Mds_session final : private Connection_handler, public Ticker {
 public:
  Mds_session(Clock& clock, Network& network, Random& random, Log& log,
              Mds_session_options options);
  ~Mds_session() override;
  Mds_session(Mds_session const&) = delete;
  Mds_session& operator=(Mds_session const&) = delete;

  /// Sends `request` (its op set; session and sequence are filled in) and answers once. Commands
  /// (see mds.proto) open the session first when there is none yet. Retried over reconnects and
  /// changes of master until `patience` is over: then unavailable, the outcome of a command being
  /// unknown. Patience 0: for ever. A reply with status != ok is a Failure with its text.
  /// With `late` a command that was sent is called off when `done` has been told unavailable.
  /// `late` is told its answer if it was carried out all the same, else an error: then it never
  /// will be.
  void call(proto::Mds_request request, Duration patience, Mds_done done, Mds_done late = {});

  /// Called for every push of the MDS.
  void set_push_handler(std::function<void(proto::Mds_push const&)> handler);
  /// Called with true whenever a master has been reached (again), with false when it was lost.
  void set_link_handler(std::function<void(bool up)> handler);
  /// Called when the MDS has forgotten the session: every lease of it is gone. Calls after that run
  /// in a new session, opened by itself.
  void set_expired_handler(std::function<void()> handler);
  /// Fills each heartbeat of the session (files, counters). Heartbeats are only sent once a session
  /// is open.
  void set_heartbeat_filler(std::function<void(proto::Heartbeat&)> filler);
  /// Until then nobody else has been given a lease of this session, unless it has been told.
  /// Counted from when the confirmation was asked for, with a fifth to spare for clocks that run
  /// at different rates.
  Time_point leased_until() const { return leased_until_; }
  /// Called for every file whose lease, or share in it, a heartbeat reply reports lost.
  using Lost_handler = std::function<void(File_id file, bool is_shared)>;
  void set_lost_files_handler(Lost_handler handler);

  /// Empty before the first session is open.
  std::string const& cluster_uuid() const { return cluster_uuid_; }

  bool is_linked() const { return linked_; }
  /// Has the master that it is linked to answered, lately if it was asked?
  bool is_answering() const;
  /// When the last answer of a master arrived; a client that has not heard for long must not trust
  /// that its leases still stand.
  Time_point last_heard() const { return last_heard_; }

  void on_tick() override;

 private:
  struct Call {
    proto::Mds_request request;
    Time_point give_up;     // zero: never
    Time_point not_before;  // the MDS asked for patience
    Mds_done done;
    Mds_done late;
    std::uint64_t key = 0;      // in calls_
    std::uint64_t wire_id = 0;  // request id of the try under way; 0 = not sent
    bool is_command = false;
  };
  using Calls = std::map<std::uint64_t, Call>;

  void on_connected(Connection_id connection, Peer_info const& peer) override;
  void on_message(Connection_id connection, Message& message) override;
  void on_disconnected(Connection_id connection, Failure const& why) override;

  void connect_to_next(Time_point now);
  void link_down(Time_point now);
  void send_pending();
  void send_call(Call& call);
  void send_control(std::uint64_t wire_id, proto::Mds_request const& request);
  void open_session();
  void session_opened(proto::Mds_reply const& reply);
  void session_expired();
  void redirect(proto::Mds_reply const& reply);
  void learn_servers(google::protobuf::RepeatedPtrField<std::string> const& servers);
  void handle_reply(std::uint64_t wire_id, proto::Mds_reply reply);
  void handle_heartbeat(proto::Mds_reply const& reply);
  void fail_overdue(Time_point now);
  std::uint64_t oldest_sequence() const;
  bool is_waiting() const;

  Clock& clock_;
  Network& network_;
  Random& random_;
  Log& log_;
  Mds_session_options options_;

  Connection_id connection_{};  // 0: none
  bool linked_ = false;         // connected and authenticated
  bool has_answered_ = false;   // as the master, on this connection
  std::string connected_to_;
  std::size_t next_server_ = 0;
  std::string preferred_;  // where a redirect pointed; tried first
  int redirects_ = 0;      // since the last answer of a master
  Time_point connect_started_{};
  Time_point retry_at_{};
  std::string last_failure_ = "not tried yet";
  Time_point last_heard_{};
  Time_point asked_at_{};  // when the oldest unanswered question was sent
  Time_point last_heartbeat_{};

  Session_id session_{};
  std::string cluster_uuid_;
  bool session_open_ = false;
  Time_point session_asked_{};
  Duration lease_{};  // how long a confirmation holds
  Time_point leased_until_{};
  bool session_opening_ = false;
  std::uint64_t session_wire_id_ = 0;
  std::uint64_t heartbeat_wire_id_ = 0;
  std::uint64_t next_sequence_ = 1;
  std::uint64_t next_wire_id_ = 1;
  std::uint64_t next_call_ = 1;
  Calls calls_;                                        // in order of submission
  std::map<std::uint64_t, std::uint64_t> by_wire_id_;  // wire id -> call

  std::function<void(proto::Mds_push const&)> on_push_;
  std::function<void(bool)> on_link_;
  std::function<void()> on_expired_;
  std::function<void(proto::Heartbeat&)> fill_heartbeat_;
  Lost_handler on_lost_file_;
};

/// Is `request` a command (changes state, goes through the log)?
bool is_command(proto::Mds_request const& request);

}  // namespace pstorage::client
