// Volumes of the cluster, exported by their name: "vm1", "group/vm1"; "vm1@monday" read-only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "blockdev/volume/volume_opener.h"
#include "blockdev/volume_provider.h"
#include "core/client/cluster.h"

namespace pstorage::nbd {

/// Thread: the server's loop.
class Cluster_provider final : public Volume_provider {
 public:
  static constexpr std::size_t volumes_max = 100'000;  // in one listing

  /// `patience`: how long to wait for an unreachable cluster or for a volume that somebody holds. A
  /// killed server's lease ends by itself within 10 s, so with more than that a restarted one gets
  /// its volumes back without an error.
  Cluster_provider(client::Cluster& cluster, volume::Volume_opener& opener, Executor& executor,
                   Duration patience);
  ~Cluster_provider() override;

  void list(List_done done) override;
  void describe(std::string const& name, Describe_done done) override;
  void open(std::string const& name, Open_done done) override;

 private:
  struct Listing;

  void list_next(std::shared_ptr<Listing> const& listing);
  void listed(std::shared_ptr<Listing> const& listing, std::string const& directory,
              std::vector<proto::File> const& files);

  void describe_disk(volume::Volume_name const& name, Describe_done done);

  client::Cluster& cluster_;
  volume::Volume_opener& opener_;
  Executor& executor_;
  Duration patience_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pstorage::nbd
