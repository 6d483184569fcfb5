// From a name to an open disk: descriptor, deltas, image. Asynchronous.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "blockdev/ploop/descriptor.h"
#include "blockdev/ploop/image_store.h"
#include "blockdev/ploop/ploop_image.h"
#include "blockdev/volume/names.h"
#include "core/client/cluster.h"
#include "core/env/executor.h"

namespace pstorage::volume {

/// An open disk in its parts. A raw volume: `disk` alone. A snapshot: without lock and top.
struct Disk_parts {
  std::unique_ptr<client::Volume> disk;
  ploop::Ploop_image* image = nullptr;   // `disk`, when it is one
  std::shared_ptr<client::Volume> lock;  // the descriptor: its lease is the lease of the volume
  std::shared_ptr<client::Volume> top;   // the file that takes the writes
  std::optional<ploop::Descriptor> descriptor;
  std::map<std::string, std::string> properties;
};

using Parts_opened = std::function<void(Outcome<Disk_parts>)>;

/// Opens a volume, or a snapshot of it. `done` comes later, once; not after `cluster` is gone.
/// Errors: see Volume_opener.
void open_parts(client::Cluster& cluster, Executor& executor, Volume_name const& name,
                Duration patience, Parts_opened done);

/// The file `path` as a store of images; it grows and shrinks at the MDS.
std::unique_ptr<ploop::Image_store> make_store(client::Cluster& cluster,
                                               std::shared_ptr<client::Volume> file);

/// What a ploop volume says about its size where nobody has to look into it; 0: nothing.
std::uint64_t noted_size(proto::File const& file);

/// Finds a snapshot by its name or GUID; nullptr: there is none.
ploop::Delta const* find_snapshot(ploop::Descriptor const& descriptor, std::string const& text);
/// "there is no snapshot ..., those there are: ...".
Failure unknown_snapshot(ploop::Descriptor const& descriptor, std::string const& text);

/// Writes `text` into a new file `path` and keeps it open: durable when `done` is called.
void write_new_file(client::Cluster& cluster, std::string const& path, std::string const& text,
                    std::function<void(Outcome<std::unique_ptr<client::Volume>>)> done);

}  // namespace pstorage::volume
