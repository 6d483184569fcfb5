// Every operation on a disk at rest, cut off at every single call to the disk, then a power loss.
#include <gtest/gtest.h>

#include "blockdev/ploop/open_image.h"
#include "blockdev/ploop/run_queue.h"
#include "blockdev/ploop/virtual_disk.h"
#include "tests/blockdev/ploop/sim_store.h"
#include "tests/sim/sim_disk.h"

namespace pstorage::ploop {
namespace {

constexpr char const* name = "DiskDescriptor.xml";
constexpr char const* snapshot_1 = "{11111111-2222-3333-4444-555555555555}";
constexpr char const* snapshot_2 = "{22222222-2222-3333-4444-555555555555}";
constexpr std::uint32_t cluster = cluster_bytes_min;
constexpr std::uint64_t disk_bytes = 24 * cluster;

Progress const silent = [](std::uint64_t, std::uint64_t) {};

/// A disk on a simulated file system: base with data, snapshot with data, top with data.
class World {
 public:
  explicit World(std::uint64_t seed, bool has_snapshots) : random_(seed) {
    EXPECT_TRUE(disk_.make_directory("d"));
    EXPECT_TRUE(disk_.sync_directory(""));
    Disk_format format;
    format.cluster_bytes = cluster;
    format.version = seed % 2 == 0 ? Version::v1 : Version::v2;
    auto made = Virtual_disk::create(directory_, name, "root.hds", disk_bytes, format);
    EXPECT_TRUE(made.has_value());
    fill();
    for (auto const* guid : {snapshot_1, snapshot_2}) {
      if (!has_snapshots) break;
      EXPECT_TRUE(open().snapshot(guid, random_).has_value());
      fill();
    }
    before = content();
  }

  Virtual_disk open() {
    auto opened = Virtual_disk::open(directory_, name);
    EXPECT_TRUE(opened.has_value()) << opened.error().text;
    return std::move(opened).value();
  }

  /// Runs `operation`; its calls from number `calls` on fail; then the power does. True: it was
  /// done before.
  bool cut_off(std::function<Outcome<void>(Virtual_disk&)> const& operation, std::uint64_t calls) {
    auto opened = open();
    auto const first = disk_.calls();
    disk_.set_fault([&](sim::Disk_call, std::string const&) -> std::optional<std::error_code> {
      if (disk_.calls() - first <= calls) return std::nullopt;
      return std::make_error_code(std::errc::io_error);
    });
    bool const is_done = operation(opened).has_value();
    disk_.set_fault(nullptr);
    disk_.crash();
    return is_done;
  }

  /// What the next start does: goes on with conversions, repairs what is marked as in use.
  std::string recover() {
    auto opened = open();
    for (auto const& delta : opened.descriptor().deltas()) {
      if (delta.is_raw) continue;
      if (auto converted = convert_image_version(directory_, delta.file, Version::v2);
          !converted.has_value() && errc_of(converted.error().code) != Errc::busy)
        return converted.error().text;
      auto store = directory_.open(delta.file);
      if (!store.has_value()) return store.error().text;
      auto const report = check_image(store.value(), {.is_read_only = false, .drop_in_use = true});
      if (!report.has_value()) return delta.file + ": " + report.error().text;
      if (!report.value().is_clean()) return delta.file + ": " + report.value().faults[0].text;
    }
    return {};
  }

  std::vector<std::byte> content(std::string const& guid = top_guid) {
    auto opened = open();
    auto const& top = *opened.descriptor().find(guid);
    std::vector<Slice> slices;
    if (top.is_raw) {
      auto store = directory_.open(top.file);
      slices = {store.value().read(0, store.value().size_bytes()).value()};
    } else {
      load_image(opened.layers(guid).value(), "image", {}, [&](Outcome<Loaded_image> loaded) {
        ASSERT_TRUE(loaded.has_value()) << loaded.error().text;
        image_ = std::make_unique<Ploop_image>(std::move(loaded).value(), "image", queue_);
      });
      while (queue_.run_one()) {
      }
      if (image_ == nullptr) return {};
      image_->read(0, disk_bytes,
                   [&](Result<std::vector<Slice>> result) { slices = std::move(result.value()); });
      while (queue_.run_one()) {
      }
      image_.reset();
    }
    auto const whole = gathered(slices);
    return {whole.data(), whole.data() + disk_bytes};
  }

  std::vector<std::byte> before;

 private:
  /// Clusters with data, clusters of zeros, and a hole in the file.
  void fill() {
    auto opened = open();
    auto const& top = *opened.descriptor().find(opened.descriptor().top());
    auto delta = Offline_delta::open(directory_.open(top.file).value(), top.file).value();
    EXPECT_TRUE(delta.begin().has_value());
    for (std::uint32_t index = 0; index < delta.entries(); ++index) {
      if (random_.percent(40)) continue;
      auto data = Slice::allocate(cluster);
      auto const value = static_cast<int>(random_.percent(20) ? 0 : 1 + random_.below(255));
      std::memset(data.data(), value, cluster);
      EXPECT_TRUE(delta.write(index, data).has_value());
    }
    EXPECT_TRUE(delta.finish().has_value());
  }

  test::Seeded random_;
  sim::Event_queue events_;
  sim::Sim_disk disk_{events_, random_};
  Run_queue queue_;
  Disk_directory directory_{disk_, "d", queue_, [this] {
                              PS_ASSERT(queue_.run_one());
                              return true;
                            }};
  std::unique_ptr<Ploop_image> image_;
};

using Operation = std::function<Outcome<void>(Virtual_disk&)>;

/// Done or not, the content is what it was; or that of snapshot `or_of`, when it was there before.
void cut_everywhere(Operation const& operation, bool has_snapshots,
                    std::string const& or_of = top_guid) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    for (std::uint64_t calls = 0;; ++calls) {
      ASSERT_LT(calls, 3000u);
      World world(seed, has_snapshots);
      auto const other = world.content(or_of);
      bool const is_done = world.cut_off(operation, calls);
      auto const fault = world.recover();
      ASSERT_EQ(fault, "") << "seed " << seed << ", cut off after " << calls << " calls";
      auto const now = world.content();
      ASSERT_TRUE(now == other || (now == world.before && !(is_done && other != world.before)))
          << "seed " << seed << ", cut off after " << calls << " calls: another content";
      if (is_done) break;
    }
  }
}

TEST(Offline_crash, Snapshot) {
  test::Seeded random(9);
  cut_everywhere([&](Virtual_disk& disk) { return disk.snapshot(new_guid(random), random); }, true);
}

TEST(Offline_crash, Merge_of_the_top) {
  test::Seeded random(9);
  cut_everywhere([&](Virtual_disk& disk) { return disk.merge(top_guid, random, silent); }, true);
}

TEST(Offline_crash, Delete_of_the_base_snapshot_merges_its_child) {
  test::Seeded random(9);
  cut_everywhere([&](Virtual_disk& disk) { return disk.remove(snapshot_1, random, silent); }, true);
}

TEST(Offline_crash, Grow_until_data_must_move_out_of_the_table_s_way) {
  cut_everywhere([](Virtual_disk& disk) { return disk.grow(20000ull * cluster); }, true);
}

TEST(Offline_crash, Compact) {
  cut_everywhere([](Virtual_disk& disk) { return disk.compact(silent); }, false);
}

TEST(Offline_crash, Conversion_of_the_version) {
  for (auto const version : {Version::v1, Version::v2})
    cut_everywhere([=](Virtual_disk& disk) { return disk.convert_version(version); }, true);
}

TEST(Offline_crash, Conversion_to_raw) {
  test::Seeded random(9);
  cut_everywhere(
      [&](Virtual_disk& disk) { return disk.convert_format(true, false, random, silent); }, false);
}

TEST(Offline_crash, Preallocation) {
  test::Seeded random(9);
  cut_everywhere(
      [&](Virtual_disk& disk) { return disk.convert_format(false, true, random, silent); }, false);
}

TEST(Offline_crash, Switch_leaves_the_old_state_or_the_snapshot) {
  test::Seeded random(9);
  cut_everywhere([&](Virtual_disk& disk) { return disk.switch_to(snapshot_1, random); }, true,
                 snapshot_1);
}

}  // namespace
}  // namespace pstorage::ploop
