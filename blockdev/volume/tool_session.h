// A cluster for tools that may wait: one session, one loop, blocking calls.
#pragma once

#include <memory>
#include <string>

#include "blockdev/ploop/blocking_store.h"
#include "core/client/cluster.h"
#include "core/env/random.h"
#include "core/runtime/runtime.h"

namespace pstorage::volume {

/// Thread: one. Every call runs the loop until its answer. Errors carry a line for a person.
class Tool_session {
 public:
  static constexpr Duration patience = std::chrono::seconds(30);

  /// Key, servers and host come from the configuration directory. Errors: not_found.
  static Outcome<std::unique_ptr<Tool_session>> connect(std::string const& cluster,
                                                        std::string const& bootstrap);
  /// Gives everything back that is still held.
  ~Tool_session();
  Tool_session(Tool_session const&) = delete;
  Tool_session& operator=(Tool_session const&) = delete;

  client::Cluster& cluster();
  Runtime& runtime();
  Executor& executor();
  Random& random();
  /// Milliseconds since 1970, UTC.
  std::uint64_t wall_ms();
  /// For stores over files of the cluster. It ends when nothing was answered for a minute.
  ploop::Turn turn();

  Outcome<proto::Mds_reply> call(proto::Mds_request request);
  /// Takes the lease. Errors: busy at once, naming the holder, or after `busy_patience`.
  Outcome<std::shared_ptr<client::Volume>> open(std::string const& path,
                                                Duration busy_patience = Duration{0});
  Outcome<std::shared_ptr<client::Volume>> open_reader(std::string const& path);
  /// Flushes and gives the lease back. Errors: what was written may not be durable.
  Outcome<void> close(std::shared_ptr<client::Volume> volume);
  /// Cluster::compare().
  Outcome<void> compare(client::Volume& volume, std::uint32_t index);
  Outcome<void> ask_holder(std::string const& path, proto::Holder_request request);

 private:
  struct Loop;
  explicit Tool_session(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

}  // namespace pstorage::volume
