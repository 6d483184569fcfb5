#include <gtest/gtest.h>

#include <random>

#include "core/tools/flush_file.h"
#include "core/tools/flush_ledger.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_scheduler.h"

namespace pstorage::tools {
namespace {

constexpr Flush_file_shape shape{3, 4096, 8};

class Seeded final : public Random {
 public:
  explicit Seeded(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t next() override { return engine_(); }

 private:
  std::mt19937_64 engine_;
};

TEST(Flush_file, Writes_go_round) {
  EXPECT_EQ(newest_write_in(0, 8, 0), 0u);
  EXPECT_EQ(newest_write_in(0, 8, 1), 1u);
  EXPECT_EQ(newest_write_in(1, 8, 1), 0u);
  EXPECT_EQ(newest_write_in(0, 8, 8), 1u);
  EXPECT_EQ(newest_write_in(0, 8, 9), 9u);
  EXPECT_EQ(newest_write_in(7, 8, 23), 16u);
  EXPECT_EQ(newest_write_in(7, 8, 24), 24u);
}

class Lying_file final : public File {
 public:
  explicit Lying_file(std::unique_ptr<File> file) : file_(std::move(file)) {}
  Result<void> write(std::uint64_t offset, std::span<Bytes const> parts) override {
    return file_->write(offset, parts);
  }
  Result<void> read(std::uint64_t offset, Mutable_bytes to) override {
    return file_->read(offset, to);
  }
  Result<void> read_cached(std::uint64_t offset, Mutable_bytes to) override {
    return file_->read_cached(offset, to);
  }
  void read_async(std::uint64_t offset, Mutable_bytes to, Disk_completion done) override {
    file_->read_async(offset, to, std::move(done));
  }
  void sync_async(Disk_completion done) override { file_->sync_async(std::move(done)); }
  Result<void> sync() override { return success(); }
  Result<void> punch_hole(std::uint64_t offset, std::uint64_t length) override {
    return file_->punch_hole(offset, length);
  }
  Result<void> truncate(std::uint64_t size) override { return file_->truncate(size); }
  Result<std::uint64_t> size() override { return file_->size(); }
  Result<std::uint64_t> allocated_bytes() override { return file_->allocated_bytes(); }

 private:
  std::unique_ptr<File> file_;
};

/// A disk whose files' syncs do nothing once it `lies`.
class Liar final : public Disk {
 public:
  explicit Liar(Disk& disk) : disk_(disk) {}
  bool lies = false;
  Result<std::unique_ptr<File>> open(std::string const& name, Open_mode mode) override {
    auto file = disk_.open(name, mode);
    if (!lies || !file.has_value()) return file;
    return std::unique_ptr<File>(std::make_unique<Lying_file>(std::move(file).value()));
  }
  bool exists(std::string const& name) override { return disk_.exists(name); }
  Result<std::vector<std::string>> list(std::string const& name) override {
    return disk_.list(name);
  }
  Result<void> make_directory(std::string const& name) override {
    return disk_.make_directory(name);
  }
  Result<void> remove(std::string const& name) override { return disk_.remove(name); }
  Result<void> rename(std::string const& from, std::string const& to) override {
    return disk_.rename(from, to);
  }
  Result<void> sync_directory(std::string const& name) override {
    return disk_.sync_directory(name);
  }
  void sync_directory_async(std::string const& name, Disk_completion done) override {
    disk_.sync_directory_async(name, std::move(done));
  }
  Result<Disk_space> space() override { return disk_.space(); }

 private:
  Disk& disk_;
};

/// What is lost when the power fails after `writes` writes, of which the last one may be torn.
std::string lost_after_power_cut(std::uint64_t seed, bool lies, std::uint64_t writes) {
  sim::Event_queue queue;
  Seeded random(seed);
  sim::Sim_disk platter(queue, random);
  Liar disk(platter);
  {
    EXPECT_TRUE(Flush_file::open(disk, "file", shape).has_value());
    disk.lies = lies;
    auto file = Flush_file::open(disk, "file", shape);
    for (std::uint64_t write = 1; write <= writes; ++write) {
      EXPECT_EQ(file.value().write_next().value(), write);
    }
  }
  platter.crash();
  disk.lies = false;
  auto file = Flush_file::open(disk, "file", shape);
  auto const lost = file.value().verify(writes);
  EXPECT_TRUE(lost.has_value());
  return lost.value();
}

TEST(Flush_file, An_honest_disk_has_lost_nothing) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    EXPECT_EQ(lost_after_power_cut(seed, false, seed), "") << "seed " << seed;
  }
}

TEST(Flush_file, A_disk_that_lies_is_found_out) {
  int found = 0;
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    if (!lost_after_power_cut(seed, true, 20).empty()) ++found;
  }
  // A crash may keep every unsynced write: that proves nothing against the disk.
  EXPECT_GE(found, 45);
}

TEST(Flush_file, Writes_that_nobody_heard_of_before_the_power_cut_accuse_nobody) {
  sim::Event_queue queue;
  Seeded random(1);
  sim::Sim_disk disk(queue, random);
  auto file = Flush_file::open(disk, "file", shape);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(file.value().write_next().has_value());
  // The 21st was under way: it has torn the block of the 13th.
  auto const raw = disk.open("file", {});
  std::vector<std::byte> half(2048);
  ASSERT_TRUE(raw.value()->write(4 * 4096, Bytes(half)).has_value());
  EXPECT_EQ(file.value().verify(15).value(), "");
  EXPECT_EQ(file.value().verify(20).value(), "");
  // Two torn blocks were not one write.
  ASSERT_TRUE(raw.value()->write(5 * 4096, Bytes(half)).has_value());
  EXPECT_NE(file.value().verify(20).value(), "");
}

TEST(Flush_file, A_file_that_is_gone_is_a_loss) {
  sim::Event_queue queue;
  Seeded random(1);
  sim::Sim_disk disk(queue, random);
  auto file = Flush_file::open(disk, "file", shape);
  auto const lost = file.value().verify(12);
  EXPECT_NE(lost.value().find("has nothing instead of write"), std::string::npos) << lost.value();
}

TEST(Flush_ledger, Remembers_what_was_durable_until_the_client_is_back) {
  Flush_ledger ledger;
  EXPECT_EQ(ledger.on_line(1, "hello host1:/mnt 4096 8 2").reply, "last 0 0");
  EXPECT_EQ(ledger.on_line(1, "kept").print, "");
  ledger.on_line(1, "done 0 5");
  ledger.on_line(1, "done 1 7");
  EXPECT_EQ(ledger.on_closed(1).print, "host1:/mnt: gone after 12 durable writes");
  EXPECT_EQ(ledger.on_line(2, "hello host1:/mnt 4096 8 2").reply, "last 5 7");
  EXPECT_EQ(ledger.on_line(2, "kept").print, "host1:/mnt: kept all, 12 writes so far");
  EXPECT_FALSE(ledger.has_lies());
  EXPECT_EQ(ledger.on_line(2, "lost block 3\x1b[2J").print,
            "host1:/mnt: cache error detected! block 3?[2J");
  EXPECT_TRUE(ledger.has_lies());
}

TEST(Flush_ledger, Refuses_what_does_not_fit_together) {
  Flush_ledger ledger;
  EXPECT_TRUE(ledger.on_line(1, "done 0 1").is_end);
  for (auto const* bad :
       {"hello", "hello a 1 2", "hello a 1 2 0", "hello a 1 2 257", "hello a x y z"})
    EXPECT_TRUE(ledger.on_line(1, bad).is_end) << bad;
  EXPECT_FALSE(ledger.on_line(1, "hello a 4096 8 2").is_end);
  EXPECT_TRUE(ledger.on_line(2, "hello a 4096 8 2").is_end);  // connected already
  EXPECT_TRUE(ledger.on_line(1, "done 2 1").is_end);
  EXPECT_TRUE(ledger.on_line(1, "done 0").is_end);
  EXPECT_TRUE(ledger.on_line(1, "hello a 4096 8 2").is_end);
  ledger.on_closed(1);
  auto const other = ledger.on_line(3, "hello a 4096 16 2");
  EXPECT_NE(other.reply.find("the same -b, -n and -t"), std::string::npos) << other.reply;
}

}  // namespace
}  // namespace pstorage::tools
