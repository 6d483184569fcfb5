#include "blockdev/ploop/format.h"

#include <gtest/gtest.h>

#include <array>

#include "blockdev/ploop/cluster_runs.h"

namespace pstorage::ploop {
namespace {

constexpr std::uint64_t mib = 1u << 20;

std::array<std::byte, header_bytes> encoded(Header const& header) {
  std::array<std::byte, header_bytes> bytes{};
  encode_header(header, bytes);
  return bytes;
}

TEST(Format, A_new_image_has_the_header_that_ploop_writes) {
  // `ploop init -s 1g -v 2 -t none`, its first 64 bytes.
  constexpr std::array<unsigned char, header_bytes> by_ploop = {
      0x57, 0x69, 0x74, 0x68, 0x6f, 0x75, 0x46, 0x72, 0x65, 0x53, 0x70, 0x61, 0x63,
      0x45, 0x78, 0x74, 0x02, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x20, 0x08,
      0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x20,
      0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00,
      0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00};
  auto const bytes = encoded(make_header(Version::v2, mib, 1024 * mib).value());
  EXPECT_EQ(std::memcmp(bytes.data(), by_ploop.data(), header_bytes), 0);
}

TEST(Format, What_is_encoded_is_decoded) {
  for (auto const version : {Version::v1, Version::v2}) {
    for (std::uint32_t cluster = cluster_bytes_min; cluster <= cluster_bytes_max; cluster *= 2) {
      auto const header = make_header(version, cluster, 777 * mib + 512).value();
      EXPECT_EQ(header.size_bytes() % cluster, 0u);
      auto const decoded = decode_header(encoded(header)).value();
      EXPECT_EQ(decoded.version, version);
      EXPECT_EQ(decoded.size_sectors, header.size_sectors);
      EXPECT_EQ(decoded.entries, header.entries);
      EXPECT_EQ(decoded.first_cluster, header.first_cluster);
      EXPECT_EQ(encoded(decoded), encoded(header));
    }
  }
}

TEST(Format, Entries_count_in_sectors_in_version_1_and_in_clusters_in_version_2) {
  auto const one = make_header(Version::v1, mib, 64 * mib).value();
  auto const two = make_header(Version::v2, mib, 64 * mib).value();
  EXPECT_EQ(one.encode_entry(3), 3u * 2048);
  EXPECT_EQ(two.encode_entry(3), 3u);
  EXPECT_EQ(one.decode_entry(3 * 2048, 10), 3u);
  EXPECT_EQ(one.decode_entry(3 * 2048 + 1, 10), Header::bad_cluster);
  EXPECT_EQ(two.decode_entry(3, 10), 3u);
  EXPECT_EQ(two.decode_entry(10, 10), Header::bad_cluster);  // behind the end of the file
  auto large = make_header(Version::v2, mib, std::uint64_t{1} << 40).value();
  ASSERT_EQ(large.first_cluster, 5u);
  EXPECT_EQ(large.decode_entry(4, 10), Header::bad_cluster);  // inside the table
  EXPECT_EQ(large.decode_entry(0, 10), 0u);
}

TEST(Format, Impossible_disks_are_refused_with_what_is_possible) {
  EXPECT_FALSE(make_header(Version::v2, mib + 1, mib).has_value());
  EXPECT_FALSE(make_header(Version::v2, 16u << 10, mib).has_value());
  EXPECT_FALSE(make_header(Version::v2, 128u << 20, mib).has_value());
  EXPECT_FALSE(make_header(Version::v2, mib, 0).has_value());
  EXPECT_TRUE(make_header(Version::v2, mib, disk_bytes_max).has_value());
  EXPECT_FALSE(make_header(Version::v2, mib, disk_bytes_max + 1).has_value());
  // ploop's own tool silently makes 1 TiB of this.
  auto const three_tib = make_header(Version::v1, mib, std::uint64_t{3} << 40);
  ASSERT_FALSE(three_tib.has_value());
  EXPECT_NE(three_tib.error().text.find("version 1"), std::string::npos);
}

TEST(Format, Every_wrong_field_of_a_header_is_named) {
  auto const good = encoded(make_header(Version::v2, mib, 64 * mib).value());
  struct Case {
    std::size_t offset;
    std::uint32_t value;
    char const* says;
  };
  for (auto const& wrong :
       {Case{0, 0, "signature"}, Case{16, 3, "type"}, Case{28, 2049, "cluster"},
        Case{32, 0, "entries"}, Case{32, 0xFFFFFFFF, "entries"}, Case{36, 0xFFFFFFFF, "size"},
        Case{48, 2047, "data begins"}, Case{48, 0, "data begins"}}) {
    auto bytes = good;
    store_le(bytes.data() + wrong.offset, wrong.value);
    auto const decoded = decode_header(bytes);
    ASSERT_FALSE(decoded.has_value()) << wrong.offset;
    EXPECT_NE(decoded.error().text.find(wrong.says), std::string::npos) << decoded.error().text;
  }
  EXPECT_FALSE(decode_header(Bytes(good).first(63)).has_value());
}

TEST(Format, Geometry_is_what_ploop_computes) {
  EXPECT_EQ(geometry_of(2097152).cylinders, 2080u);  // 1 GiB, as in its DiskDescriptor.xml
  EXPECT_EQ(geometry_of(2097152).sectors, 63u);
  EXPECT_EQ(geometry_of(65024).cylinders, 127u);
  EXPECT_EQ(geometry_of(65024).sectors, 32u);
  EXPECT_EQ(geometry_of(7).heads, 1u);
}

TEST(Cluster_runs, Neighbours_merge_and_the_lowest_is_taken_first) {
  Cluster_runs runs;
  runs.add(10, 2);
  runs.add(5);
  runs.add(12, 3);
  runs.add(9);
  EXPECT_EQ(runs.runs().size(), 2u);
  EXPECT_EQ(runs.count(), 7u);
  EXPECT_EQ(runs.take_first(), 5u);
  for (std::uint32_t wanted = 9; wanted < 15; ++wanted) EXPECT_EQ(runs.take_first(), wanted);
  EXPECT_TRUE(runs.empty());
}

}  // namespace
}  // namespace pstorage::ploop
