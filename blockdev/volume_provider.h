// Where the NBD server gets volumes from: the cluster, or memory in tests.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/client/volume.h"
#include "core/result.h"

namespace pstorage::nbd {

/// A volume as a client sees it before it opens it.
struct Volume_description {
  std::string name;  // export name
  std::uint64_t size_bytes = 0;
  bool is_read_only = false;
};

using List_done = std::function<void(Outcome<std::vector<Volume_description>>)>;
using Describe_done = std::function<void(Outcome<Volume_description>)>;
using Open_done = std::function<void(Outcome<std::unique_ptr<client::Volume>>)>;

/// Thread: the server's loop. Every call is answered exactly once, never from inside the call; no
/// answer comes after the provider's destruction. Failures: not_found (no such volume), busy (the
/// text names who holds it), others with a line for a person.
class Volume_provider {
 public:
  virtual ~Volume_provider() = default;
  /// All volumes that may be exported, in the order to show them.
  virtual void list(List_done done) = 0;
  /// One of them, without opening it.
  virtual void describe(std::string const& name, Describe_done done) = 0;
  /// Opens it for reading and writing by this process alone.
  virtual void open(std::string const& name, Open_done done) = 0;
};

}  // namespace pstorage::nbd
