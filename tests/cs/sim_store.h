// A Store on a simulated disk, driven by hand: what the tests of the store stand on.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "core/crc32c.h"
#include "cs/repository.h"
#include "cs/store.h"
#include "tests/sim/sim_disk.h"

namespace pstorage::cs {

/// Splitmix64: one seed, one run.
class Seeded_random final : public Random {
 public:
  explicit Seeded_random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() override {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }

 private:
  std::uint64_t state_;
};

class Silent_log final : public Log {
 public:
  void write(Log_level level, std::string_view message, Fields) override {
    if (level == Log_level::error) errors.emplace_back(message);
  }
  std::vector<std::string> errors;
};

inline constexpr std::uint64_t test_salt = 0x5eed5a17;

/// The bytes that a write of `stamp` puts into `block`.
inline Slice test_block(std::uint64_t stamp, std::uint32_t block) {
  Slice slice = Slice::allocate(block_bytes);
  Seeded_random random(stamp * 1'000'003 + block);
  for (std::size_t i = 0; i < block_bytes; i += 8) store_le(slice.data() + i, random.next());
  return slice;
}

struct Test_data {
  Slice data;
  Slice crcs;
};

inline Test_data test_data(std::uint64_t stamp, std::uint32_t first, std::uint32_t blocks) {
  Test_data made{Slice::allocate(std::size_t{blocks} * block_bytes), Slice::allocate(blocks * 4)};
  for (std::uint32_t i = 0; i < blocks; ++i) {
    Slice const block = test_block(stamp, first + i);
    std::memcpy(made.data.data() + std::size_t{i} * block_bytes, block.data(), block_bytes);
    store_le(made.crcs.data() + i * 4, crc32c(block.bytes()));
  }
  return made;
}

/// Disk, time and a store that can be killed and started again.
class Sim_store {
 public:
  explicit Sim_store(std::uint64_t seed, sim::Sim_disk_options disk_options = {},
                     std::uint64_t ring_bytes = 1u << 20)
      : random(seed), disk(queue, random, disk_options) {
    Repository_identity identity;
    identity.salt = test_salt;
    identity.cs = {1025};
    identity.uuid = "test";
    EXPECT_TRUE(make_contents(disk, disk, "journal", identity, ring_bytes, {}).has_value());
    EXPECT_TRUE(finish_repository(disk, identity).has_value());
    options.salt = test_salt;
    options.reserve_bytes = 1u << 20;
    options.staged_bytes_max = 1u << 20;
    options.apply_above_bytes = 256u << 10;
    options.commit_bytes = 256u << 10;
    options.chunks.table_bytes_max = 16 * page_bytes;
    options.chunks.open_files_max = 4;
  }

  Outcome<void> start() {
    store = std::make_unique<Store>(queue, disk, journal_disk != nullptr ? *journal_disk : disk,
                                    log, options);
    return store->start();
  }
  void must_start() {
    auto const started = start();
    ASSERT_TRUE(started.has_value()) << started.error().text;
  }
  /// The process dies; with `power_loss` the disk forgets too.
  void die(bool power_loss) {
    store.reset();
    if (power_loss) {
      disk.crash();
    } else {
      disk.kill();
    }
  }
  void run(Duration time) {
    for (Time_point const end = queue.now() + time; queue.now() < end;) {
      queue.run_until(queue.now() + tick_interval);
      store->on_tick();
      store->end_turn();
    }
  }
  /// Stops in order.
  Errc stop() {
    Errc result = Errc::timed_out;
    store->stop([&](Errc done) { result = done; });
    for (int i = 0; i < 2000 && result == Errc::timed_out; ++i) run(tick_interval);
    return result;
  }
  Errc flush(File_id file) {
    Errc result = Errc::timed_out;
    store->flush(file, [&](Errc done) { result = done; });
    for (int i = 0; i < 2000 && result == Errc::timed_out; ++i) run(tick_interval);
    return result;
  }
  Chunk& make_chunk(Chunk_id id, std::uint32_t size = 1u << 20) {
    auto const made = store->create(id, {7}, size, {1});
    EXPECT_TRUE(made.has_value());
    return *made.value();
  }
  Chunk& chunk(Chunk_id id) { return *store->load(id).value(); }
  Errc write(Chunk_id id, std::uint32_t first, std::uint32_t blocks, std::uint64_t stamp) {
    auto const made = test_data(stamp, first, blocks);
    Errc const admitted = store->admit(chunk(id), first * block_bytes, blocks * block_bytes);
    if (admitted != Errc::ok) return admitted;
    if (made.data.size() > store->request_bytes_max()) return Errc::too_large;
    while (!store->has_room(made.data.size())) run(tick_interval);
    auto const [lsn, large] =
        store->write(chunk(id), first * block_bytes, made.crcs, made.data, {stamp});
    Errc const ended = store->end_turn();
    if (ended != Errc::ok || !large) return ended;
    for (int i = 0; i < 2000 && store->large_done() < lsn; ++i) run(tick_interval);
    return store->large_done() < lsn ? Errc::timed_out : Errc::ok;
  }
  Read_result read(Chunk_id id, std::uint32_t first, std::uint32_t blocks,
                   Read_kind kind = Read_kind::read) {
    Read_result result;
    auto const loaded = store->load(id);
    if (loaded.has_error()) {
      result.status = errc_of(loaded.error());
      return result;
    }
    if (store->try_read(*loaded.value(), kind, first * block_bytes, blocks * block_bytes, result)) {
      return result;
    }
    bool done = false;
    store->read_async(id, kind, first * block_bytes, blocks * block_bytes, [&](Read_result& found) {
      result = std::move(found);
      done = true;
    });
    for (int i = 0; i < 100 && !done; ++i) run(tick_interval);
    EXPECT_TRUE(done);
    return result;
  }
  /// Does block `block` hold what the write of `stamp` put there (0: zeros)?
  bool holds(Chunk_id id, std::uint32_t block, std::uint64_t stamp) {
    Read_result const found = read(id, block, 1);
    if (found.status != Errc::ok) return false;
    Slice const zeros = [] {
      Slice slice = Slice::allocate(block_bytes);
      std::memset(slice.data(), 0, block_bytes);
      return slice;
    }();
    Slice const expected = stamp == 0 ? zeros : test_block(stamp, block);
    return std::memcmp(found.data.data(), expected.data(), block_bytes) == 0;
  }

  sim::Event_queue queue;
  Seeded_random random;
  sim::Sim_disk disk;
  Disk* journal_disk = nullptr;  // null: disk
  Silent_log log;
  Store_options options;
  std::unique_ptr<Store> store;
};

}  // namespace pstorage::cs
