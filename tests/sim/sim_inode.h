// Contents of one simulated file: what is seen, what is durable, and what lies between.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/env/random.h"
#include "tests/sim/sim_disk.h"

namespace pstorage::sim {

inline constexpr std::size_t page_bytes = 4096;
inline constexpr std::size_t sector_bytes = 512;

/// Sparse bytes; pages that are missing read as zeros and take no space.
class Sim_image {
 public:
  std::uint64_t size = 0;

  void write(std::uint64_t offset, Bytes bytes) {
    size = std::max(size, offset + bytes.size());
    while (!bytes.empty()) {
      std::size_t const inside = offset % page_bytes;
      std::size_t const take = std::min(bytes.size(), page_bytes - inside);
      std::memcpy(page(offset / page_bytes)->data() + inside, bytes.data(), take);
      offset += take;
      bytes = bytes.subspan(take);
    }
  }
  void read(std::uint64_t offset, Mutable_bytes to) const {
    while (!to.empty()) {
      std::size_t const inside = offset % page_bytes;
      std::size_t const take = std::min(to.size(), page_bytes - inside);
      auto const found = pages_.find(offset / page_bytes);
      if (found == pages_.end()) {
        std::memset(to.data(), 0, take);
      } else {
        std::memcpy(to.data(), found->second->data() + inside, take);
      }
      offset += take;
      to = to.subspan(take);
    }
  }
  void punch(std::uint64_t offset, std::uint64_t length) {
    pages_.erase(pages_.lower_bound(offset / page_bytes),
                 pages_.lower_bound((offset + length) / page_bytes));
  }
  void truncate(std::uint64_t to) {
    if (to < size) {
      pages_.erase(pages_.lower_bound((to + page_bytes - 1) / page_bytes), pages_.end());
      if (to % page_bytes != 0 && pages_.contains(to / page_bytes)) {
        auto* last = page(to / page_bytes);
        std::memset(last->data() + to % page_bytes, 0, page_bytes - to % page_bytes);
      }
    }
    size = to;
  }
  bool has_page(std::uint64_t number) const { return pages_.contains(number); }
  std::uint64_t allocated_bytes() const { return pages_.size() * page_bytes; }

 private:
  using Page = std::array<std::byte, page_bytes>;
  Page* page(std::uint64_t number) {
    auto& slot = pages_[number];
    if (!slot) {
      slot = std::make_shared<Page>();
    } else if (slot.use_count() > 1) {
      slot = std::make_shared<Page>(*slot);  // shared with the other image
    }
    return slot.get();
  }
  std::map<std::uint64_t, std::shared_ptr<Page>> pages_;
};

struct Sim_disk::Inode {
  enum class Kind { write, punch, truncate };
  struct Unsynced {
    Kind kind = Kind::write;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::vector<std::byte> bytes;
  };
  Sim_image seen;
  Sim_image durable;
  std::vector<Unsynced> unsynced;
  std::uint64_t synced = 0;  // operations that left `unsynced` since the file was made

  static void carry_out(Sim_image& image, Unsynced const& operation) {
    switch (operation.kind) {
      case Kind::write:
        image.write(operation.offset, operation.bytes);
        break;
      case Kind::punch:
        image.punch(operation.offset, operation.length);
        break;
      case Kind::truncate:
        image.truncate(operation.length);
        break;
    }
  }
  void add(Unsynced operation) {
    carry_out(seen, operation);
    unsynced.push_back(std::move(operation));
  }
  /// Number of the operation after the last one so far.
  std::uint64_t mark() const { return synced + unsynced.size(); }
  /// Everything before `until` is durable.
  void make_durable(std::uint64_t until) {
    if (until <= synced) return;
    auto const count = std::min<std::uint64_t>(until - synced, unsynced.size());
    if (count == unsynced.size()) {
      durable = seen;
    } else {
      for (std::uint64_t i = 0; i < count; ++i) carry_out(durable, unsynced[i]);
    }
    unsynced.erase(unsynced.begin(), unsynced.begin() + static_cast<std::ptrdiff_t>(count));
    synced += count;
  }
  void crash(Random& random) {
    for (Unsynced const& operation : unsynced) {
      auto const luck = random.below(3);
      if (luck == 0) continue;
      if (luck == 1 || operation.kind != Kind::write) {
        carry_out(durable, operation);
      } else {
        tear(operation, random);
      }
    }
    synced += unsynced.size();
    unsynced.clear();
    seen = durable;
  }

 private:
  void tear(Unsynced const& operation, Random& random) {
    std::uint64_t at = operation.offset;
    Bytes rest = operation.bytes;
    while (!rest.empty()) {
      auto const take = std::min<std::size_t>(rest.size(), sector_bytes - at % sector_bytes);
      if (random.below(2) == 0) durable.write(at, rest.first(take));
      at += take;
      rest = rest.subspan(take);
    }
  }
};

}  // namespace pstorage::sim
