// Volumes in memory for tests of the NBD server: sparse, with the semantics of client::Volume, and
// faults on demand.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "blockdev/volume_provider.h"
#include "core/ids.h"

namespace pstorage::nbd::test {

/// What all openings of one volume share.
struct Memory_store {
  std::string name;
  std::uint64_t size = 0;
  std::map<std::uint64_t, Slice> blocks;  // block number -> 4096 bytes; missing: hole
  std::size_t opened = 0;                 // times, ever
  std::size_t open_now = 0;
  std::size_t flushes = 0;
  std::size_t fua_writes = 0;
  std::error_code fail_with;  // every request fails with this
  std::string holder;         // somebody else has it: open() is busy
};

/// Runs what it is given later, from the loop: callbacks never come from inside a call.
using Defer = std::function<void(std::function<void()>)>;

class Memory_volume final : public client::Volume {
 public:
  Memory_volume(std::shared_ptr<Memory_store> store, Defer defer)
      : store_(std::move(store)), defer_(std::move(defer)), size_(store_->size) {
    ++store_->opened;
    ++store_->open_now;
  }
  ~Memory_volume() override { --store_->open_now; }

  std::uint64_t size_bytes() const override { return size_; }
  void set_size(std::uint64_t bytes) override { size_ = bytes; }
  std::string const& path() const override { return store_->name; }

  void read(std::uint64_t offset, std::uint64_t length, client::Read_done done) override {
    PS_ASSERT(in_bounds(offset, length, store_->size));
    std::vector<Slice> slices;
    while (length > 0) {
      auto const within = offset % block_bytes;
      auto const take = std::min<std::uint64_t>(length, block_bytes - within);
      auto const found = store_->blocks.find(offset / block_bytes);
      auto const& block = found == store_->blocks.end() ? zero_block() : found->second;
      // A copy: the block may be changed before this is sent.
      slices.push_back(Slice::copy_of(block.bytes().subspan(within, take)));
      offset += take;
      length -= take;
    }
    defer_([store = store_, done = std::move(done), slices = std::move(slices)]() mutable {
      if (store->fail_with) return done(store->fail_with);
      done(std::move(slices));
    });
  }

  void write(std::uint64_t offset, std::vector<Slice> data, bool fua, client::Done done) override {
    if (!store_->fail_with)
      for (auto const& slice : data) {
        store(offset, slice.bytes());
        offset += slice.size();
      }
    if (fua) ++store_->fua_writes;
    answer(std::move(done));
  }

  void zero(std::uint64_t offset, std::uint64_t length, bool only_whole_blocks, bool fua,
            client::Done done) override {
    PS_ASSERT(in_bounds(offset, length, store_->size));
    if (fua) ++store_->fua_writes;
    while (length > 0 && !store_->fail_with) {
      auto const within = offset % block_bytes;
      auto const take = std::min<std::uint64_t>(length, block_bytes - within);
      auto const found = store_->blocks.find(offset / block_bytes);
      if (take == block_bytes) {
        if (found != store_->blocks.end()) store_->blocks.erase(found);
      } else if (!only_whole_blocks && found != store_->blocks.end()) {
        std::memset(found->second.data() + within, 0, take);
      }
      offset += take;
      length -= take;
    }
    answer(std::move(done));
  }

  void flush(client::Done done) override {
    ++store_->flushes;
    answer(std::move(done));
  }

  void extents(std::uint64_t offset, std::uint64_t length, std::size_t extents_max,
               client::Extents_done done) override {
    std::vector<client::Extent> runs;
    while (length > 0) {
      auto const take = std::min<std::uint64_t>(length, block_bytes - offset % block_bytes);
      bool const hole = !store_->blocks.contains(offset / block_bytes);
      if (runs.empty() || runs.back().hole != hole) {
        if (runs.size() == extents_max) break;
        runs.push_back({0, hole});
      }
      runs.back().length += take;
      offset += take;
      length -= take;
    }
    defer_([store = store_, done = std::move(done), runs = std::move(runs)]() mutable {
      if (store->fail_with) return done(store->fail_with);
      done(std::move(runs));
    });
  }

  void close(client::Done done) override { answer(std::move(done)); }
  std::string waiting_reason() const override { return {}; }

 private:
  static Slice const& zero_block() {
    thread_local Slice const zeros = [] {
      auto slice = Slice::allocate(block_bytes);
      std::memset(slice.data(), 0, block_bytes);
      return slice;
    }();
    return zeros;
  }

  void store(std::uint64_t offset, Bytes bytes) {
    PS_ASSERT(in_bounds(offset, bytes.size(), store_->size));
    while (!bytes.empty()) {
      auto const within = offset % block_bytes;
      auto const take = std::min<std::uint64_t>(bytes.size(), block_bytes - within);
      auto& block = store_->blocks[offset / block_bytes];
      if (block.empty()) block = Slice::copy_of(zero_block().bytes());
      std::memcpy(block.data() + within, bytes.data(), take);
      offset += take;
      bytes = bytes.subspan(take);
    }
  }

  void answer(client::Done done) {
    defer_([store = store_, done = std::move(done)] {
      if (store->fail_with) return done(store->fail_with);
      done(success());
    });
  }

  std::shared_ptr<Memory_store> store_;
  Defer defer_;
  std::uint64_t size_;  // as this opening knows it
};

class Memory_provider final : public Volume_provider {
 public:
  explicit Memory_provider(Defer defer) : defer_(std::move(defer)) {}

  Memory_store& add(std::string const& name, std::uint64_t size) {
    auto& store = stores_[name];
    store = std::make_shared<Memory_store>();
    store->name = name;
    store->size = size;
    return *store;
  }

  void list(List_done done) override {
    std::vector<Volume_description> all;
    for (auto const& [name, store] : stores_) all.push_back({name, store->size, false});
    defer_([done = std::move(done), all = std::move(all)]() mutable { done(std::move(all)); });
  }

  void describe(std::string const& name, Describe_done done) override {
    auto const found = stores_.find(name);
    defer_([name, done = std::move(done), missing = found == stores_.end(),
            size = found == stores_.end() ? 0 : found->second->size] {
      if (missing) return done(failure(Errc::not_found, "there is no volume '" + name + "'"));
      done(Volume_description{name, size, false});
    });
  }

  void open(std::string const& name, Open_done done) override {
    auto const found = stores_.find(name);
    auto store = found == stores_.end() ? nullptr : found->second;
    defer_([this, name, done = std::move(done), store = std::move(store)] {
      if (!store) return done(failure(Errc::not_found, "there is no volume '" + name + "'"));
      if (!store->holder.empty())
        return done(failure(Errc::busy, "volume '" + name + "' is in use by " + store->holder));
      std::unique_ptr<client::Volume> volume = std::make_unique<Memory_volume>(store, defer_);
      done(std::move(volume));
    });
  }

 private:
  Defer defer_;
  std::map<std::string, std::shared_ptr<Memory_store>> stores_;
};

}  // namespace pstorage::nbd::test
