// client::Read_cache in one file of a fast disk ('pstorage-mount -C FILE -R MB'). Layout:
// core/format.md, "Read cache".
#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <memory>
#include <string>
#include <vector>

#include "core/client/read_cache.h"
#include "core/env/disk.h"
#include "core/log.h"

namespace pstorage::client {

struct Ssd_cache_options {
  std::string cluster_uuid;
  std::string boot_id;           // of this start of the machine: writes of before may be lost
  std::uint64_t size_bytes = 0;  // of cached data; rounded down to whole slots
};

/// Counters since the start.
struct Ssd_cache_counters {
  std::uint64_t hits = 0, misses = 0, fills = 0, damaged = 0;
};

/// What a process leaves in the file its successor finds, if nothing was lost: after a clean end,
/// or in the same start of the machine. Every block is checked against a checksum that names its
/// place in its file. A cache that fails is switched off, with one line in the log; reads go on
/// without.
class Ssd_cache final : public Read_cache {
 public:
  /// Takes the file over, or makes it anew when it is of another cluster, size or version. Blocks.
  /// Errors: bad_request (too small), the system's.
  static Outcome<std::unique_ptr<Ssd_cache>> open(std::unique_ptr<File> file,
                                                  Ssd_cache_options options, Log& log);

  Cache_key file_opened(File_id file, Epoch previous, Epoch now) override;
  bool has(Cache_key key, std::uint64_t offset, std::uint64_t length) const override;
  void read(Cache_key key, std::uint64_t offset, std::uint64_t length, Cached_done done) override;
  void fill(Cache_key key, std::uint64_t offset, std::vector<Slice> const& data) override;
  void forget(Cache_key key, std::uint64_t offset, std::uint64_t length) override;

  /// The clean end: everything is durable. Blocks.
  void close();
  Ssd_cache_counters const& counters() const { return counters_; }
  std::uint64_t slots_used() const { return places_.size(); }

 private:
  static constexpr std::uint64_t slot_bytes = 65536;
  static constexpr std::size_t slot_blocks = 16;
  static constexpr std::size_t files_max = 4096;

  struct Entry {  // of a slot, as in the file
    Cache_key key = 0;
    std::uint64_t slot = 0;   // offset in its file / slot_bytes
    std::uint32_t valid = 0;  // bit a block
    std::uint32_t crc = 0;    // of this entry with 0 here
    std::array<std::uint32_t, slot_blocks> crcs{};
  };
  struct File_entry {
    File_id file;
    Cache_key key = 0;
    Epoch epoch;
    std::uint32_t crc = 0;   // as above
    std::uint64_t used = 0;  // the higher the later
  };
  using Place = std::pair<Cache_key, std::uint64_t>;
  struct Part {  // of a range, within one slot
    std::uint32_t position = 0;
    std::uint64_t first_block = 0, blocks = 0;
  };

  Ssd_cache(std::unique_ptr<File> file, Ssd_cache_options options, Log& log);
  std::uint64_t slots() const { return entries_.size(); }
  std::uint64_t entry_offset(std::uint64_t position) const;
  std::uint64_t data_offset(std::uint64_t position) const;
  Result<void> load();
  Result<void> make();
  Result<void> store_header(bool is_clean);
  void store(std::uint64_t position);
  void store_file(std::size_t number);
  void fail(Errc why);
  void empty_slot(std::uint32_t position);
  std::uint32_t take_slot();
  std::optional<std::vector<Part>> parts_of(Cache_key key, std::uint64_t first,
                                            std::uint64_t end) const;
  bool check(std::vector<Part> const& parts, std::vector<Entry> const& entries, Slice& data);
  void fill_blocks(Cache_key key, std::uint64_t slot, std::uint64_t first, Bytes blocks);
  static std::uint32_t seed(Entry const& entry, std::uint64_t block);

  std::unique_ptr<File> file_;
  Ssd_cache_options const options_;
  Log& log_;
  bool is_on_ = true;
  std::vector<Entry> entries_;
  std::vector<bool> recent_;  // used since the hand was there
  std::vector<std::uint32_t> free_;
  std::uint64_t hand_ = 0;
  boost::unordered_flat_map<Place, std::uint32_t> places_;
  std::vector<File_entry> files_;
  Cache_key last_key_ = 0;
  std::uint64_t last_use_ = 0;
  Ssd_cache_counters counters_;
};

}  // namespace pstorage::client
