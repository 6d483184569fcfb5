// Writes BAT pages: one write a page at a time, which carries all changes made until it began.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "blockdev/ploop/format.h"
#include "blockdev/ploop/image_map.h"
#include "blockdev/ploop/image_store.h"

namespace pstorage::ploop {

/// The page of the file that holds BAT entry `index`.
inline std::uint32_t page_of(std::uint32_t index) {
  return static_cast<std::uint32_t>((header_bytes + std::uint64_t{index} * 4) / page_bytes);
}

/// Page `page` of a file whose header is `header` and whose own entries are those of `map` that
/// are in `level`. page_bytes long.
Slice compose_page(Header const& header, Image_map const& map, Level level, std::uint32_t page);

/// Thread: the owner's loop.
class Bat_writer {
 public:
  using Compose = std::function<Slice(std::uint32_t page)>;

  Bat_writer(Image_store& store, Compose compose) : store_(&store), compose_(std::move(compose)) {}

  /// Writes the page of entry `index` as it is now, or later. Not durable by itself.
  void write_entry(std::uint32_t index, Done done) { write_page(page_of(index), std::move(done)); }
  void write_page(std::uint32_t page, Done done);

  bool is_idle() const { return pages_.empty(); }
  /// Another store from now on. Nothing is being written.
  void set_store(Image_store& store) { store_ = &store; }
  /// Writes begun since the image was opened.
  std::uint64_t writes() const { return writes_; }
  /// Those of them that were answered with success.
  std::uint64_t answered() const { return answered_; }

 private:
  struct Page {
    std::vector<Done> under_way;
    std::vector<Done> waiting;  // their change may have come after the write began
  };

  void start(std::uint32_t page);
  void written(std::uint32_t page, Result<void> const& result);

  Image_store* store_;
  Compose compose_;
  std::map<std::uint32_t, Page> pages_;  // those being written
  std::uint64_t writes_ = 0;
  std::uint64_t answered_ = 0;
};

}  // namespace pstorage::ploop
