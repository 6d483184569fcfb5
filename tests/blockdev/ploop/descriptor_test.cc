#include "blockdev/ploop/descriptor.h"

#include <gtest/gtest.h>

#include "tests/blockdev/ploop/sim_store.h"

namespace pstorage::ploop {
namespace {

constexpr char const* snapshot_1 = "{11111111-2222-3333-4444-555555555555}";
constexpr char const* snapshot_2 = "{22222222-2222-3333-4444-555555555555}";

std::string replaced(std::string text, std::string const& from, std::string const& to) {
  auto const at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

Descriptor fresh() { return Descriptor::make(2097152, 2048, "root.hds", false, false); }

TEST(Descriptor, A_new_one_is_what_ploop_writes) {
  EXPECT_EQ(fresh().text(), R"(<?xml version="1.0"?>
<Parallels_disk_image>
  <Disk_Parameters>
    <Disk_size>2097152</Disk_size>
    <Cylinders>2080</Cylinders>
    <Heads>16</Heads>
    <Sectors>63</Sectors>
    <Padding>0</Padding>
  </Disk_Parameters>
  <StorageData>
    <Storage>
      <Start>0</Start>
      <End>2097152</End>
      <Blocksize>2048</Blocksize>
      <Image>
        <GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID>
        <Type>Compressed</Type>
        <File>root.hds</File>
      </Image>
    </Storage>
  </StorageData>
  <Snapshots>
    <TopGUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</TopGUID>
    <Shot>
      <GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID>
      <ParentGUID>{00000000-0000-0000-0000-000000000000}</ParentGUID>
    </Shot>
  </Snapshots>
</Parallels_disk_image>
)");
}

TEST(Descriptor, Snapshots_form_chains_and_branches) {
  auto disk = fresh();
  disk.push_top(snapshot_1, "root.hds.1");
  disk.push_top(snapshot_2, "root.hds.2");
  auto chain = disk.chain_to(disk.top());
  ASSERT_EQ(chain.size(), 3u);
  EXPECT_EQ(chain[0].file, "root.hds");
  EXPECT_EQ(chain[0].guid, snapshot_1);
  EXPECT_EQ(chain[2].file, "root.hds.2");
  disk.replace_top(snapshot_1, "root.hds.3");  // a branch: snapshot 2 stays
  EXPECT_EQ(disk.children_of(snapshot_1).size(), 2u);
  EXPECT_EQ(disk.chain_to(disk.top()).size(), 2u);
  disk.remove(snapshot_2);
  disk.merge_down(top_guid);
  chain = disk.chain_to(disk.top());
  ASSERT_EQ(chain.size(), 1u);
  EXPECT_EQ(chain[0].file, "root.hds");
  EXPECT_EQ(chain[0].guid, top_guid);
}

TEST(Descriptor, Merging_up_leaves_the_child_as_it_is) {
  auto disk = fresh();
  disk.push_top(snapshot_1, "root.hds.1");
  disk.push_top(snapshot_2, "root.hds.2");
  disk.merge_up(snapshot_2);
  auto chain = disk.chain_to(disk.top());
  ASSERT_EQ(chain.size(), 2u);
  EXPECT_EQ(chain[0].guid, snapshot_1);
  EXPECT_EQ(chain[0].file, "root.hds");
  EXPECT_EQ(chain[1].guid, top_guid);
  EXPECT_EQ(chain[1].file, "root.hds.2");
  disk.merge_up(snapshot_1);
  chain = Descriptor::parse(disk.text()).value().chain_to(disk.top());
  ASSERT_EQ(chain.size(), 1u);
  EXPECT_EQ(chain[0].parent, no_guid);
  EXPECT_EQ(chain[0].file, "root.hds.2");
}

TEST(Descriptor, Unknown_elements_and_comments_stay) {
  auto text =
      replaced(fresh().text(), "<Padding>0</Padding>",
               "<Padding>0</Padding><Encryption><KeyId>x</KeyId></Encryption><!-- note -->");
  text = replaced(text, "<Parallels_disk_image>", "<Parallels_disk_image Version=\"1.0\">");
  auto disk = Descriptor::parse(text).value();
  disk.push_top(snapshot_1, "root.hds.1");
  EXPECT_NE(disk.text().find("<KeyId>x</KeyId>"), std::string::npos);
  EXPECT_NE(disk.text().find("<!-- note -->"), std::string::npos);
  EXPECT_NE(disk.text().find("Version=\"1.0\""), std::string::npos);
}

TEST(Descriptor, Others_ways_of_writing_are_read) {
  auto text = fresh().text();
  for (auto const* tag : {"<", "</"})
    text = replaced(text, std::string(tag) + "Parallels_disk_image>",
                    std::string(tag) + "Virtuozzo_disk_image>");
  text = replaced(text, "{5fbaabe3", "{5FBAABE3");
  text = replaced(text, "    <TopGUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</TopGUID>\n", "");
  auto const disk = Descriptor::parse(text).value();
  EXPECT_EQ(disk.top(), top_guid);
  EXPECT_EQ(disk.size_sectors(), 2097152u);
}

TEST(Descriptor, What_makes_no_sense_is_refused_with_a_line) {
  auto disk = fresh();
  disk.push_top(snapshot_1, "root.hds.1");
  auto const good = disk.text();
  auto const parent = std::string("<ParentGUID>") + snapshot_1;
  struct Case {
    std::string text;
    char const* says;
  };
  std::vector<Case> const cases = {
      {"", "document"},
      {"<a", "at byte"},
      {replaced(good, "<Disk_size>2097152", "<Disk_size>-1"), "Disk_size"},
      {replaced(good, "<Blocksize>2048", "<Blocksize>0"), "Blocksize"},
      {replaced(good, "<Storage>", "<Storage></Storage><Storage>"), "Storage"},
      {replaced(good, "<File>root.hds<", "<File><"), "File"},
      {replaced(good, "<Type>Compressed", "<Type>Plump"), "Type"},
      {replaced(good, parent, std::string("<ParentGUID>") + snapshot_2), "missing"},
      {replaced(good, parent, std::string("<ParentGUID>") + top_guid), "no base"},
      {replaced(good, parent, std::string("<ParentGUID>") + no_guid), "2 base images"},
      {replaced(good, "<Shot>", "<Shot></Shot><Shot>"), "numbers"},
      {replaced(good, std::string("<TopGUID>") + top_guid, std::string("<TopGUID>") + snapshot_1),
       "top"},
  };
  for (auto const& each : cases) {
    auto const parsed = Descriptor::parse(each.text);
    ASSERT_FALSE(parsed.has_value()) << each.says;
    EXPECT_NE(parsed.error().text.find(each.says), std::string::npos) << parsed.error().text;
    EXPECT_EQ(parsed.error().text.find('\n'), std::string::npos);
  }
}

TEST(Descriptor, Guids_are_recognised_and_made) {
  EXPECT_TRUE(is_guid(top_guid));
  EXPECT_FALSE(is_guid("5fbaabe3-6958-40ff-92a7-860e329aab41"));
  EXPECT_FALSE(is_guid("{5fbaabe3-6958-40ff-92a7-860e329aab4g}"));
  test::Seeded random(1);
  auto const one = new_guid(random);
  EXPECT_TRUE(is_guid(one)) << one;
  EXPECT_NE(one, new_guid(random));
}

}  // namespace
}  // namespace pstorage::ploop
