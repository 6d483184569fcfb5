// The directory of a virtual disk in the cluster, for tools that work on disks at rest.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "blockdev/ploop/image_directory.h"
#include "blockdev/volume/tool_session.h"

namespace pstorage::volume {

/// Files are opened once and stay open until close(). With the lock (the lease of the descriptor)
/// every change of a name is refused by the MDS as soon as the lock is lost. Thread: one.
class Cluster_directory final : public ploop::Image_directory {
 public:
  /// `path`: "/volumes/vm1".
  Cluster_directory(Tool_session& session, std::string path);
  /// As close(), errors apart.
  ~Cluster_directory() override;
  Cluster_directory(Cluster_directory const&) = delete;
  Cluster_directory& operator=(Cluster_directory const&) = delete;

  /// Takes the lease of the descriptor. Errors: busy (naming the holder), not_found.
  Outcome<void> lock(Duration busy_patience);
  bool is_locked() const { return lock_ != nullptr; }
  /// For commands on other names that rely on the lock; only with it.
  proto::Lease_guard guard() const;
  /// Closes what is open, the lock last. Errors: what was written may not be durable.
  Outcome<void> close();
  /// Forgets `name`, which was closed by somebody else (an image over its store).
  void closed_elsewhere(std::string const& name) { files_.erase(name); }
  Outcome<std::vector<proto::File>> list();
  std::string const& path() const { return path_; }

  Outcome<ploop::Blocking_store> open(std::string const& name) override;
  Outcome<ploop::Blocking_store> open_to_read(std::string const& name) override;
  Outcome<bool> is_shared(std::string const& name) override;
  Outcome<ploop::Blocking_store> create(std::string const& name) override;
  bool exists(std::string const& name) override;
  Outcome<void> remove(std::string const& name) override;
  Outcome<std::string> read_text(std::string const& name, std::size_t bytes_max) override;
  /// The descriptor: its new file carries the lock on.
  Outcome<void> replace_text(std::string const& name, std::string const& text) override;
  std::string path_of(std::string const& name) const override { return path_ + "/" + name; }

 private:
  struct Open_file {
    std::shared_ptr<client::Volume> file;
    bool is_writer = false;
  };
  ploop::Blocking_store store_over(std::shared_ptr<client::Volume> file);
  Outcome<std::string> read_once(std::string const& name, std::size_t bytes_max);
  Outcome<proto::File> look_up(std::string const& name);
  Outcome<proto::Mds_reply> command(proto::Mds_request request);

  Tool_session& session_;
  std::string const path_;
  std::map<std::string, Open_file> files_;
  std::shared_ptr<client::Volume> lock_;
};

}  // namespace pstorage::volume
