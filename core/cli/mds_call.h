// Blocking requests to a cluster's MDS, for tools.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/address.h"
#include "core/auth/key.h"
#include "core/env/clock.h"
#include "core/ids.h"
#include "core/result.h"
#include "mds.pb.h"

namespace pstorage::cli {

struct Mds_caller_options {
  std::string cluster;
  std::vector<Address> servers;  // client addresses
  Cluster_key key;
  Host_id host;
  Duration patience = std::chrono::seconds(10);  // for one answer
  bool keeps_servers = false;                    // what the MDS tells of goes into bs.list
};

/// Thread: one. Each call runs the loop until its answer or the deadline.
class Mds_caller {
 public:
  /// Proves the key to the first server that answers. Errors: unavailable (nobody answers, with
  /// the reason of each), wrong_key, wrong_cluster, wrong_version: all with what to do.
  static Outcome<std::unique_ptr<Mds_caller>> connect(Mds_caller_options options);
  /// As above with everything taken from the configuration directory (key, list, host id).
  static Outcome<std::unique_ptr<Mds_caller>> connect(std::string const& cluster,
                                                      std::string const& bootstrap);
  ~Mds_caller();
  Mds_caller(Mds_caller const&) = delete;
  Mds_caller& operator=(Mds_caller const&) = delete;

  /// Errors: what the MDS answered, unavailable after the deadline (the outcome of a command is
  /// then unknown).
  Outcome<proto::Mds_reply> call(proto::Mds_request request);

 private:
  struct Loop;
  explicit Mds_caller(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

}  // namespace pstorage::cli
