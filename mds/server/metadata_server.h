// The metadata server without its environment: requests in, commands through the log, replies and
// pushes out. The simulator drives this very class.
#pragma once

#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/env/clock.h"
#include "core/env/disk.h"
#include "core/env/network.h"
#include "core/env/random.h"
#include "core/log.h"
#include "mds/replicated_log.h"
#include "mds/server/healing.h"
#include "mds/server/orphans.h"
#include "mds/server/tables.h"
#include "mds/state/state_machine.h"

namespace pstorage::mds {

struct Metadata_server_options {
  std::string cluster;  // name
  std::string cluster_uuid;
  Mds_id id{1};
  std::string address;  // between MDSs, for people
  std::string host_name;
  Host_id host;
  std::string database_path = ":memory:";  // then the log is never cut
  Recovery_limits recovery;
  Duration session_timeout = std::chrono::seconds(10);
  /// A file that its last writer left without closing is made good after this, if nobody opens it.
  Duration settle_after = std::chrono::seconds(30);
  Duration cs_timeout = std::chrono::seconds(3);  // without a heartbeat: inactive
  Duration planner_interval = std::chrono::seconds(1);
  Duration planner_pause = std::chrono::milliseconds(20);  // between two looks, when there is news
  Duration push_interval = std::chrono::seconds(10);       // unanswered orders are sent again
  std::size_t commands_max = 4096;                         // proposed and not yet applied
  std::size_t command_bytes_max = 64u << 20;
  std::uint64_t space_reserve_bytes = 64u << 20;  // below: nothing that grows is accepted
  std::uint64_t checkpoint_bytes = 16u << 20;     // of SQLite's write-ahead log
  /// The disk of the log or the database has failed: the process must end. Called once.
  std::function<void(Failure const&)> on_fatal;
  /// Runs what may block (the first) beside the loop, then the second on the loop. Without: at
  /// once.
  std::function<void(std::function<void()>, std::function<void()>)> off_loop =
      [](auto const& work, auto const& done) { work(), done(); };
  std::uint64_t apply_rows_max = 4096;  // changed without a look at the sockets: 20 ms
  /// Runs its argument on the loop after other events had their turn. May be null: never needed.
  std::function<void(std::function<void()>)> next_turn;
  /// Resident memory of the process in bytes, for the services list.
  std::function<std::uint64_t()> memory_bytes;
  /// Processor time of the process so far in microseconds, for the same.
  std::function<std::uint64_t()> cpu_us;
};

/// Bytes of all chunk servers, and what of them new data can take.
struct Space_figures {
  std::uint64_t total = 0;  // physical
  std::uint64_t free = 0;
  std::uint64_t allocatable = 0;  // logical, under the root directory's replication
  std::uint64_t allocatable_total = 0;
  std::string state;  // ok, low, full
};

/// Thread: the owner's loop. The owner calls on_tick() every tick_interval and on_turn_end() once a
/// loop turn, and passes this object to Network::listen().
class Metadata_server final : public Connection_handler,
                              public Ticker,
                              public Turn_hook,
                              private Log_listener {
 public:
  /// `entries` is started, flushed and ticked from here; it lives longer.
  Metadata_server(Clock& clock, Network& network, Disk& disk, Random& random, Log& log,
                  Replicated_log& entries, Metadata_server_options options);
  ~Metadata_server() override;
  Metadata_server(Metadata_server const&) = delete;
  Metadata_server& operator=(Metadata_server const&) = delete;

  /// Opens the database, recovers the log, applies what it has. Then listen(). Errors: one line
  /// that says what is wrong with the repository.
  Outcome<void> start();
  /// For a snapshot of another member that is about to replace the database.
  void close_state();
  Outcome<void> open_state();
  /// Before a stop: lets another server lead. False: there is nobody to wait for.
  bool hand_over();
  /// Makes the database durable, for a quick next start. No call may follow.
  Outcome<void> shut_down();

  void on_connected(Connection_id connection, Peer_info const& peer) override;
  void on_message(Connection_id connection, Message& message) override;
  void on_disconnected(Connection_id connection, Failure const& why) override;
  void on_tick() override;
  void on_turn_end() override;

  /// Why this server is of no use now; empty: it is.
  std::string trouble() const;
  Replicated_log const& entries() const;
  /// What 'stat' shows; false: another server is the master and knows.
  bool report(proto::Status_reply& status);
  /// The newest first.
  void latest_events(unsigned count, proto::Events& events);
  /// The first `count` entries of /volumes; allocated_chunks and holder are those of all their
  /// files.
  void list_volumes(unsigned count, proto::File_list& volumes);

  /// For tests and the simulator's checkers: read only.
  State_machine& state() { return *state_; }
  /// net.encryption as stored: what the process should offer on its next start.
  bool wants_encryption();

 private:
  struct Peer {
    Peer_info info;
    Cs_id cs;  // registered through this connection
  };
  struct Waiting {
    Connection_id connection;
    std::uint64_t request_id = 0;
    std::size_t bytes = 0;
    proto::Mds_request::OpCase op = proto::Mds_request::OP_NOT_SET;
    Session_id session;
    Cs_id cs;                       // register_cs
    std::uint32_t incarnation = 0;  // register_cs
  };
  struct Query {
    Connection_id connection;
    std::uint64_t request_id = 0;
    proto::Mds_request request;
    std::uint64_t index = 0;  // must have been applied
  };

  /// What a client has asked the holder of a lease.
  struct Question {
    Connection_id asker;
    std::uint64_t request_id = 0;
    Connection_id holder;
    std::string holder_name;
    Time_point give_up;
    Duration patience;
  };
  static constexpr std::size_t questions_max = 1000;

  struct Member_memory {
    Time_point active_at;
    std::string trouble;  // told of; empty: none
  };

  void on_committed(std::vector<Committed_entry> entries) override;
  void on_log_failed(Failure const& why) override;
  void on_leadership(bool leads) override;

  // metadata_server.cc
  void handle(Connection_id connection, Peer& peer, std::uint64_t request_id,
              proto::Mds_request request);
  Outcome<void> check_role(Peer const& peer, proto::Mds_request const& request) const;
  Outcome<void> admit(proto::Mds_request const& request);
  void heard(Session_id session, Connection_id connection);
  void reply(Connection_id connection, std::uint64_t request_id, proto::Mds_reply& reply);
  void refuse(Connection_id connection, std::uint64_t request_id, Failure const& why);
  void send(Connection_id connection, std::uint64_t request_id,
            google::protobuf::MessageLite const& message);
  void fatal(Failure const& why);

  // leadership.cc
  void take_over();
  void step_down();
  void refuse_as_follower(Connection_id connection, std::uint64_t request_id);
  std::string own_text() const;
  void add_event(char const* source, char const* severity, std::string text);
  void watch_leader(Time_point now);
  void learn_members();
  void arrange_members();
  void note_change(Outcome<void> const& changed, std::string const& address);
  void watch_members(Time_point now);
  bool yield_leadership();
  Outcome<void> may_remove(std::uint32_t id);
  void fill_members(proto::Services& services);

  // commands.cc
  void command(Connection_id connection, Peer const& peer, std::uint64_t request_id,
               proto::Mds_request request);
  Outcome<std::uint64_t> propose(Role role, proto::Mds_request request, std::size_t& bytes);
  void propose_own(proto::Mds_request request);
  Outcome<void> ask_for_leases(proto::Mds_request const& request);
  void apply_queue();
  bool apply_some();
  void answer(Applied_entry& entry);
  void registered(Waiting const& waiting);

  // queries.cc
  /// Leads and knows everything that was acknowledged before.
  bool leads() const { return entries_.is_leader() && !takes_over_; }
  void answer_queries();
  void answer_fresh_queries();
  void answer_query(Query& query, proto::Mds_reply& reply);
  void heartbeat(Session_id session, proto::Heartbeat& heartbeat, proto::Mds_reply& reply);
  Outcome<void> cs_heartbeat(Connection_id connection, Peer const& peer,
                             proto::Cs_heartbeat& heartbeat);

  // status.cc
  void watch_own_load(Time_point now);
  void fill_services(proto::Services& services);
  void fill_servers(proto::Services& services);
  void fill_clients(proto::Services& services);
  void fill_status(proto::Status_reply& status);
  Space_figures space_figures(std::vector<Candidate> const& candidates);
  void watch_cluster_space(std::vector<Candidate> const& candidates);
  void fill_chunk_counts(proto::Status_reply& status);

  // pushes.cc
  void carry_out(Effects& effects);
  void push_maps(std::set<std::pair<File_id, Chunk_id>> const& changes);
  void push_whole_maps(Session_id session, Connection_id connection);
  void push_sync_orders(std::set<std::pair<Cs_id, Chunk_id>> const& orders);
  void push_all_orders(Cs_id cs);
  void push_garbage(Cs_id cs);
  void push_orders_of_file(File_id file);

  // questions.cc
  void ask_holder(Connection_id connection, std::uint64_t request_id, proto::Ask_holder const& ask);
  void holder_answered(Connection_id connection, std::uint64_t request_id,
                       proto::Holder_answer const& answer);
  void expire_questions(Time_point now);

  // watch.cc
  void watch_sessions(Time_point now);
  void watch_servers(Time_point now);
  void set_cs_state(Cs_id cs, Cs_memory& memory, char const* state, std::string const& reason);
  void watch_slow(Time_point now);
  void watch_space();
  void checkpoint();
  void end_checkpoint(std::uint64_t applied);
  void await_checkpoint();
  bool holds_entries() const;
  void plan(Time_point now);
  void drop_offline_replicas(std::vector<Candidate> const& candidates);
  std::map<Cs_id, std::uint32_t> syncs_under_way();

  // orphans.cc
  void watch_orphans(Time_point now);
  std::optional<Cs_id> settler_of(File_id file);

  // healing.cc
  void heal(Time_point now, std::vector<Candidate> const& candidates);
  std::optional<Needy_chunk> load_needy(Chunk_id id, Need need, Time_point now);
  std::vector<Needy_chunk> load_batch(Rows& rows, std::size_t batch, std::uint64_t& cursor,
                                      Need need, Time_point now);
  std::vector<Needy_chunk> next_in_state(Chunk_state state, Need need, Time_point now);
  std::vector<Needy_chunk> next_on_server(Cs_id cs, Time_point now);
  std::vector<Needy_chunk> next_leaving(std::vector<Candidate> const& candidates, Time_point now);
  void remove_replicas(std::vector<Needy_chunk> const& leaving, Servers const& servers,
                       Time_point now);
  void finish_releases(std::vector<Candidate> const& candidates);
  void give_up_replicas(Cs_id cs, proto::Remove_replicas& command);
  void balance(Servers const& servers, Sync_slots& slots, Placement_rules const& rules,
               Time_point now);
  void dismiss_dropped(std::set<Cs_id> const& changed);
  void fill_repair(proto::Status_reply& status);
  Outcome<void> take_inventory(Connection_id connection, proto::Inventory const& inventory);
  Outcome<void> note_damage(Connection_id connection, proto::Report_damage const& damage,
                            proto::Mds_reply& reply);
  void push_minimums(std::set<File_id> const& files);
  void push_lease_wanted(Session_id holder, proto::Lease_wanted const& wanted);

  // report.cc
  void fill_use(Database& database, Inode const& inode, proto::File& volume);

  // explain.cc
  Outcome<void> explain(proto::Explain const& query, proto::Explanation& out);
  void explain_chunk(Chunk_row const& row, Inode const& inode, Servers const& servers,
                     proto::Explanation& out);
  std::string next_step(Needy_chunk const& chunk, Servers const& servers);
  std::optional<Duration> time_to_offline(std::vector<Cs_id> const& servers);
  Outcome<void> ok_to_stop(proto::Ok_to_stop const& query, proto::Stop_advice& out);
  Outcome<void> advise_servers(std::vector<Cs_id> const& servers, proto::Stop_advice& out);
  void advise_mds(proto::Ok_to_stop const& query, proto::Stop_advice& out);

  Clock& clock_;
  Network& network_;
  Disk& disk_;
  Random& random_;
  Log& log_;
  Metadata_server_options const options_;
  Replicated_log& entries_;
  std::unique_ptr<State_machine> state_;

  Leader_tables tables_;
  std::map<Connection_id, Peer> peers_;
  std::map<std::uint64_t, Waiting> waiting_;  // by index of the entry
  std::size_t waiting_bytes_ = 0;
  std::vector<Committed_entry> to_apply_;
  std::vector<Query> queries_;       // until the end of the turn
  std::deque<Query> fresh_queries_;  // until their index is applied
  std::map<std::uint64_t, Question> questions_;
  std::uint64_t next_question_ = 1;
  std::uint64_t turns_ = 0;

  bool started_ = false;
  bool fatal_ = false;
  static constexpr std::size_t backlog_max = 16384;
  bool apply_is_due_ = false;
  bool takes_over_ = false;  // leads, but has not applied yet what others have committed
  bool stalled_ = false;     // the database's disk is full: entries wait
  using Checkpoint = std::packaged_task<Outcome<bool>()>;
  std::future<Outcome<bool>> checkpoint_;  // valid: one is under way
  std::uint64_t checkpoints_ = 0;          // begun or given up
  bool low_space_ = false;
  std::string space_state_;  // of the chunk servers, as told; empty: not yet looked at
  bool planner_due_ = true;
  Time_point start_time_;
  Time_point lead_since_;
  Time_point leader_heard_;                         // any leader
  bool has_warned_ = false;                         // of there being none
  std::map<std::uint64_t, Member_memory> told_of_;  // by id
  Time_point handed_over_{-std::chrono::hours(1)};  // for want of space
  Time_point last_second_;
  std::uint64_t ticks_ = 0;
  std::uint64_t ticks_committing_ = 0;
  Rates<4> own_rates_;  // commits, CPU microseconds, ticks, ticks with a commit under way
  Time_point last_plan_;
  std::map<Cs_id, std::uint64_t> drop_cursor_;
  Healing healing_;
  Orphans orphans_;
};

}  // namespace pstorage::mds
