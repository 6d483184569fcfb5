// Opens volumes of the cluster by name, for whoever serves them: NBD server, FUSE mount.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>

#include "blockdev/volume/disk_files.h"
#include "core/client/cluster.h"
#include "core/env/clock.h"
#include "core/env/executor.h"

namespace pstorage::volume {

class Served_volume;

using Volume_opened = std::function<void(Outcome<std::unique_ptr<client::Volume>>)>;

/// The volumes that this process has open, and what other clients ask about them (snapshots of
/// disks in use). One for a Cluster. Thread: the cluster's loop. Destroy after all volumes it
/// opened.
class Volume_opener final : public Ticker {
 public:
  Volume_opener(client::Cluster& cluster, Executor& executor, Clock& clock, Log& log);
  ~Volume_opener() override;
  Volume_opener(Volume_opener const&) = delete;
  Volume_opener& operator=(Volume_opener const&) = delete;

  /// The virtual disk of volume `name` ("vm1"), whatever its format, for reading and writing by
  /// this process alone; of "vm1@monday" for reading, by any number. `done` comes later, once. A
  /// disk that was not closed is recovered. One that may be migrated (names.h) and is in use comes
  /// at once: its first request takes it from the holder. Errors: not_found, busy (the text names
  /// the holder; it is waited for, for `patience`), corrupt, is_directory, bad_request (the name).
  void open(std::string const& name, Duration patience, Volume_opened done);

  void on_tick() override;

 private:
  friend class Served_volume;
  void open_in_use(Volume_name const& name, Duration patience, Failure const& why,
                   Volume_opened done);
  bool asked(client::Volume* leased, proto::Holder_request const& request,
             client::Cluster::Holder_answer const& answer);

  client::Cluster& cluster_;
  Executor& executor_;
  Clock& clock_;
  Log& log_;
  std::set<Served_volume*> served_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pstorage::volume
