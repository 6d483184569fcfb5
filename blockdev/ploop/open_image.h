// Opening a chain of deltas: reads headers and BATs, merges them into one map.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "blockdev/ploop/ploop_image.h"

namespace pstorage::ploop {

struct Open_options {
  bool is_writable = false;
  /// Open an image for writing that was not closed: what a crash leaves is a valid image, only its
  /// tail and its holes have to be found. Without it: busy.
  bool may_recover = false;
  /// The file grows by this much at a time: the store's unit of allocation (a chunk of the
  /// cluster).
  std::uint32_t extension_bytes = 64u << 20;
};

using Load_done = std::function<void(Outcome<Loaded_image>)>;
using Open_image_done = std::function<void(Outcome<std::unique_ptr<Ploop_image>>)>;

/// Reads and validates the chain. `layers`: base first; only the first may be raw, and then not
/// alone. All entries of all deltas must be inside their files; those of a writable top must be
/// unique, too. Memory: 5 bytes a cluster of the disk, and 1 MiB.
/// Errors: corrupt (the line names `path`'s fault and the check that repairs it), busy (in use).
/// Thread: the loop of the stores. `done` is called once; from inside the call only when nothing
/// had to be read.
void load_image(std::vector<Layer> layers, std::string path, Open_options options, Load_done done);

/// load_image, and for a writable one: cuts off the unused tail, marks the image as open, durably.
/// Nobody else may have it open: in_use is no lock, the caller holds one.
void open_image(std::vector<Layer> layers, std::string path, Open_options options,
                Executor& executor, Open_image_done done);

}  // namespace pstorage::ploop
