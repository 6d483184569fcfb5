// Replaces blocks whose content does not match their checksum with the same content from another
// replica. Needs no lease: it stores a block only if its record, stamp and checksum, is the one
// that this replica has already, so that no write can be undone by it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/env/clock.h"
#include "core/env/network.h"
#include "core/log.h"
#include "cs/store.h"
#include "mds.pb.h"

namespace pstorage::cs {

/// Thread: the owner's loop. One chunk at a time.
class Block_healer final : private Connection_handler {
 public:
  /// Asks the MDS who has `chunk`; the map, or why not.
  using Find = std::function<void(Chunk_id chunk, std::uint32_t blocks,
                                  std::function<void(Outcome<proto::File_map>)> done)>;

  Block_healer(Clock& clock, Network& network, Log& log, Store& store, Cs_id own, Host_id own_host,
               Find find);
  ~Block_healer() override;

  /// Soon. More than blocks_max at a time are dropped; the next round of the scrub finds them.
  void heal(Chunk_id chunk, std::vector<std::uint32_t> const& blocks);
  void on_tick();
  std::uint64_t repaired() const { return repaired_; }
  bool is_idle() const { return waiting_.empty() && !job_; }

 private:
  struct Job {
    Chunk_id chunk;
    std::set<std::uint32_t> blocks;  // still bad
    std::vector<proto::Cs_address> sources;
    std::size_t source = 0;
    std::uint64_t request = 0;  // under way; 0: none
    std::uint32_t first = 0;    // of the request
    std::uint32_t count = 0;
    Connection_id connection;
    Time_point sent{};
  };

  void on_connected(Connection_id, Peer_info const&) override {}
  void on_message(Connection_id connection, Message& message) override;
  void on_disconnected(Connection_id connection, Failure const& why) override;

  void found(std::uint64_t job, Outcome<proto::File_map> const& map);
  void connect();
  void next_source();
  void ask();
  void store(Message const& message);
  void finish();

  Clock& clock_;
  Network& network_;
  Log& log_;
  Store& store_;
  Cs_id own_;
  Host_id own_host_;
  Find find_;
  std::map<Chunk_id, std::set<std::uint32_t>> waiting_;
  std::size_t waiting_blocks_ = 0;
  std::unique_ptr<Job> job_;
  std::uint64_t job_number_ = 0;
  std::uint64_t next_request_ = 1;
  std::uint64_t repaired_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pstorage::cs
