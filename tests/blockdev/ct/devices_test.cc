// Which devices show the disk of a container, told by what the kernel says of them.
#include "blockdev/ct/devices.h"

#include <gtest/gtest.h>

namespace pstorage::ct {
namespace {

using Snapshot = std::optional<std::string>;
constexpr char const* disk = "private/101/root.hdd";

TEST(Devices, A_loop_device_is_told_by_its_file_in_the_disk_view) {
  EXPECT_EQ(snapshot_in_view("/mnt/c/.disks/private/101/root.hdd", disk), Snapshot(""));
  EXPECT_EQ(snapshot_in_view("/mnt/c/.disks/private/101/root.hdd@monday", disk),
            Snapshot("monday"));
  EXPECT_EQ(snapshot_in_view("/mnt/c/.disks/private/1010/root.hdd", disk), Snapshot());
  EXPECT_EQ(snapshot_in_view("/mnt/c/private/101/root.hdd", disk), Snapshot());
  // Lost: the kernel goes on naming the file.
  EXPECT_EQ(snapshot_in_view("/.disks/private/101/root.hdd", disk), Snapshot(""));
}

TEST(Devices, An_attached_volume_is_told_by_its_name) {
  EXPECT_EQ(snapshot_attached("private/101/root.hdd", disk), Snapshot(""));
  EXPECT_EQ(snapshot_attached("private/101/root.hdd@monday", disk), Snapshot("monday"));
  EXPECT_EQ(snapshot_attached("private/101/root.hdd2", disk), Snapshot());
  EXPECT_EQ(snapshot_attached("vm1", disk), Snapshot());
}

}  // namespace
}  // namespace pstorage::ct
