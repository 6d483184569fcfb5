// Makes good that a writer left without closing its file, where nobody opens it: as a client, takes
// the lease, makes the replicas agree, closes. Only then may the file be repaired without a writer.
#pragma once

#include <deque>
#include <memory>

#include "core/client/cluster.h"
#include "core/env/role_network.h"
#include "mds.pb.h"

namespace pstorage::cs {

/// Thread: the owner's loop. One file at a time; a session of its own while there are any.
class Settler final {
 public:
  Settler(Clock& clock, Network& network, Random& random, Log& log, Executor& executor,
          client::Cluster_options options);

  void order(proto::Settle_files const& order);
  void on_tick();

 private:
  void start_next();
  void end_session();

  Clock& clock_;
  Role_network network_;
  Random& random_;
  Log& log_;
  Executor& executor_;
  client::Cluster_options const options_;
  std::deque<File_id> waiting_;
  bool is_busy_ = false;    // with a file
  bool has_ended_ = false;  // the session: cluster_ is no longer needed
  std::unique_ptr<client::Cluster> cluster_;
};

}  // namespace pstorage::cs
