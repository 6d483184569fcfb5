// The newcomer's side of a sync: pulls what other replicas have and this one does not. Rules:
// core/format.md "Sync of a replica".
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/env/clock.h"
#include "core/env/network.h"
#include "core/log.h"
#include "cs/pull_pace.h"
#include "cs/store.h"
#include "mds.pb.h"

namespace pstorage::cs {

struct Sync_options {
  unsigned chunks_max = 4;  // at the same time; each has one request under way
  // Each is read, sent and stored in one go: clients wait for no more than this.
  std::uint32_t window_bytes = 256u << 10;
  Duration answer_timeout = std::chrono::seconds(5);
  Duration retry_after = std::chrono::milliseconds(200);
  unsigned failures_max = 12;  // in a row, over all sources; then it gives up
};

/// Thread: the owner's loop. Memory: chunks_max windows.
class Sync_manager final : private Connection_handler {
 public:
  /// Tells the MDS; `done(accepted)` when it has answered.
  using Report = std::function<void(proto::Sync_done, std::function<void(bool accepted)> done)>;

  Sync_manager(Clock& clock, Network& network, Log& log, Store& store, Pull_pace& pace,
               Host_id own_host, Report report, Sync_options options = {});
  ~Sync_manager() override;

  /// An order of the MDS; a repeated one only updates what is known.
  void order(proto::Sync_orders::One const& order);
  /// A writer has opened `chunk`: a newcomer begins again from the first block under its join
  /// stamp.
  void chunk_opened(Chunk const& chunk);
  void chunk_removed(Chunk_id chunk) { tasks_.erase(chunk); }
  void on_tick();
  std::size_t active() const { return tasks_.size(); }
  /// Received from other servers since the start.
  std::uint64_t pulled_bytes() const { return pulled_bytes_; }

 private:
  enum class State : unsigned char {
    queued,   // until there is a free place
    waiting,  // for the writer to join
    paused,   // until retry_at
    held,     // until the pace allows the next piece
    local,    // reads its own table
    table,    // waits for the source's
    pull,     // waits for blocks
    store,    // has blocks, waits for room
    commit,   // everything is here, not yet durable
    report,   // waits for the MDS
  };
  struct Run {
    std::uint32_t first = 0;  // block
    std::uint32_t blocks = 0;
  };
  struct Task {
    Chunk_id chunk;
    File_id file;
    Version version;
    std::uint32_t chunk_size = 0;
    bool writer_expected = false;
    std::vector<proto::Cs_address> sources;
    State state = State::queued;
    std::uint64_t request = 0;      // under way
    std::uint64_t round = 0;        // answers of an earlier one are dropped
    Stamp highest;                  // of the source's blocks compared so far
    std::uint32_t position = 0;     // bytes compared so far
    std::vector<Block_record> own;  // of the window
    std::vector<Run> runs;          // of the window, to be pulled
    Message pulled;                 // waits for room
    std::size_t source = 0;
    unsigned failures = 0;
    std::string last_failure;
    Time_point sent{};
    Time_point retry_at{};
    Epoch joined;
  };
  struct Link {
    Connection_id connection;
    bool up = false;
    Address address;
  };

  void on_connected(Connection_id connection, Peer_info const& peer) override;
  void on_message(Connection_id connection, Message& message) override;
  void on_disconnected(Connection_id connection, Failure const& why) override;

  void step(Task& task);
  bool may_run(Task& task);
  void begin(Task& task);
  void restart(Task& task);
  void next_window(Task& task);
  void own_table_read(Chunk_id chunk, std::uint64_t round, Read_result& result);
  void ask(Task& task, Operation operation, std::uint32_t offset, std::uint32_t length);
  void on_table(Task& task, Message& message);
  void on_pull(Task& task, Message& message);
  bool is_pulling() const;
  Run take_piece(Task& task);
  void next_run(Task& task);
  void store_pulled(Task& task);
  void commit(Task& task);
  void report(Task& task, bool failed, std::string const& reason);
  void source_failed(Task& task, std::string const& why);
  void pause(Task& task, Duration time);
  Link* link_of(Task& task);
  bool needs(Chunk& chunk, Task const& task, std::uint32_t block, Block_record const& own,
             Block_record const& theirs) const;
  bool goes_on_looking(Task const& task, Block_record const& theirs) const;
  std::uint32_t window(Task const& task) const;

  Clock& clock_;
  Network& network_;
  Log& log_;
  Store& store_;
  Pull_pace& pace_;
  Host_id own_host_;
  Report report_;
  Sync_options options_;
  std::map<Chunk_id, Task> tasks_;
  std::map<std::uint32_t, Link> links_;  // by cs
  std::uint64_t next_request_ = 1;
  std::uint64_t next_round_ = 1;
  std::uint64_t pulled_bytes_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pstorage::cs
