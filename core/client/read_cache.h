// A cache of file content on a disk of this host, and what an open file has to know to use it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "core/buffer.h"
#include "core/ids.h"

namespace pstorage::client {

/// Names the content of one file as this host knows it; a new one for each content that others may
/// have changed. 0: none.
using Cache_key = std::uint64_t;
/// Exactly what was asked for, or nothing.
using Cached_done = std::function<void(std::optional<Slice>)>;

/// Thread: the loop's. Whole blocks of files; may lose any of them at any time.
class Read_cache {
 public:
  virtual ~Read_cache() = default;
  /// A file was opened under `now`. What is there of it is true only if it was cached under
  /// `previous`, the epoch of the last writer, who has closed (0: unknown).
  virtual Cache_key file_opened(File_id file, Epoch previous, Epoch now) = 0;
  virtual bool has(Cache_key key, std::uint64_t offset, std::uint64_t length) const = 0;
  /// `done` may be called inside. Nothing when it is not there (any more) or damaged.
  virtual void read(Cache_key key, std::uint64_t offset, std::uint64_t length,
                    Cached_done done) = 0;
  /// Keeps the whole blocks of `data`, which begins at `offset`.
  virtual void fill(Cache_key key, std::uint64_t offset, std::vector<Slice> const& data) = 0;
  /// When it returns, no successor of this process finds anything of that range.
  virtual void forget(Cache_key key, std::uint64_t offset, std::uint64_t length) = 0;
};

/// Which reads of one open file may be kept: none that a change has overtaken, and nothing of what
/// is not flushed, which the servers may still lose. Pure.
class Fill_guard {
 public:
  /// The number of the read, for may_fill.
  std::uint64_t read_begins();
  /// Ends it. May what it has read of [offset, offset + length) be kept?
  bool read_ended(std::uint64_t read, std::uint64_t offset, std::uint64_t length);
  std::uint64_t change_begins(std::uint64_t offset, std::uint64_t length);
  void change_ended(std::uint64_t change) { changing_.erase(change); }
  /// Every change up to the result is covered by a flush that begins now.
  std::uint64_t flush_begins() const;
  void flushed(std::uint64_t up_to);

 private:
  static constexpr std::uint64_t part_bytes = 65536;
  static constexpr std::size_t parts_max = 65536;  // more at once: nothing is kept until a flush

  void prune();

  std::uint64_t last_ = 0;        // number of a read or change
  std::uint64_t flushed_ = 0;     // changes up to here are durable
  std::uint64_t everything_ = 0;  // the last change that was too large to note; 0: none
  std::unordered_map<std::uint64_t, std::uint64_t> changed_;  // part: its last change
  std::set<std::uint64_t> changing_, reading_;
};

}  // namespace pstorage::client
