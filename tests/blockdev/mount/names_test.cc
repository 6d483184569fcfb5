#include "blockdev/mount/names.h"

#include <errno.h>
#include <gtest/gtest.h>

#include "blockdev/mount/errno_of.h"

namespace pstorage::mount {
namespace {

TEST(Names, Only_text_without_control_characters_is_a_name) {
  EXPECT_EQ(check_name("a b.c"), 0);
  EXPECT_EQ(check_name("h\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80"), 0);
  EXPECT_EQ(check_name(std::string(255, 'x')), 0);
  EXPECT_EQ(check_name(std::string(256, 'x')), ENAMETOOLONG);
  EXPECT_EQ(check_name("a\nb"), EINVAL);
  EXPECT_EQ(check_name("\x7f"), EINVAL);
  for (auto const* const bad : {"\xff", "\xc3", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80",
                                "\xf4\x90\x80\x80", "\xc3(", "\xf0\x8f\xbf\xbf"}) {
    EXPECT_EQ(check_name(bad), EILSEQ) << bad;
  }
}

TEST(Names, What_has_no_owner_appears_with_the_defaults) {
  proto::File file;
  file.set_id(17);
  file.set_type(proto::TYPE_FILE);
  file.set_links(1);
  file.set_size(10000);
  file.set_allocated_chunks(1);
  file.mutable_attributes()->set_chunk_size(64u << 20);
  Defaults const defaults{.mode = 0750, .uid = 5, .gid = 6};
  auto shown = stat_of(file, defaults);
  EXPECT_EQ(shown.st_mode, S_IFREG | 0640u);
  EXPECT_EQ(shown.st_uid, 5u);
  EXPECT_EQ(shown.st_gid, 6u);
  EXPECT_EQ(shown.st_blocks, 20);
  file.set_mode(S_IFREG | 0600);
  file.set_uid(7);
  shown = stat_of(file, defaults);
  EXPECT_EQ(shown.st_mode, S_IFREG | 0600u);
  EXPECT_EQ(shown.st_uid, 7u);
  EXPECT_EQ(shown.st_gid, 0u);
}

TEST(Names, A_file_without_chunks_takes_no_space) {
  proto::File file;
  file.set_size(1ull << 40);
  file.mutable_attributes()->set_chunk_size(64u << 20);
  EXPECT_EQ(stat_of(file, {}).st_blocks, 0);
  file.set_allocated_chunks(2);
  EXPECT_EQ(stat_of(file, {}).st_blocks, (128 << 20) / 512);
}

TEST(Names, Times_have_nanoseconds) {
  proto::File file;
  file.set_modified_ms(1'234'567);
  file.set_modified_sub_ns(890'123);
  auto const shown = stat_of(file, {});
  EXPECT_EQ(shown.st_mtim.tv_sec, 1234);
  EXPECT_EQ(shown.st_mtim.tv_nsec, 567'890'123);
}

TEST(Names, The_kernel_believes_only_what_nobody_else_can_change) {
  EXPECT_EQ(validity_of(proto::TYPE_FILE, false).attributes, 0);
  EXPECT_GT(validity_of(proto::TYPE_FILE, true).attributes, 0);
  EXPECT_EQ(validity_of(proto::TYPE_FILE, true).entry, 0);
  EXPECT_GT(validity_of(proto::TYPE_DIRECTORY, false).entry, 0);
}

TEST(Names, Attributes_are_text_both_ways) {
  proto::Attributes attributes;
  attributes.set_replicas_norm(3);
  attributes.set_replicas_min(2);
  attributes.set_tier(1);
  attributes.set_failure_domain("rack");
  EXPECT_EQ(attribute_text(attributes, "replicas").value(), "3:2");
  EXPECT_EQ(attribute_text(attributes, "tier").value(), "1");
  EXPECT_EQ(attribute_text(attributes, "failure-domain").value(), "rack");
  EXPECT_TRUE(attribute_text(attributes, "colour").has_error());
  EXPECT_EQ(attribute_change("replicas", "3").value().replicas_norm(), 3u);
  EXPECT_EQ(attribute_change("replicas", "3:1").value().replicas_min(), 1u);
  EXPECT_EQ(attribute_change("tier", "0").value().tier(), 0u);
  for (auto const* const bad : {"", "x", "0", "3:", ":2", "3:x", "-1", "3 "}) {
    EXPECT_TRUE(attribute_change("replicas", bad).has_error()) << bad;
  }
  EXPECT_EQ(errc_of(attribute_change("colour", "red").error().code), Errc::not_found);
}

TEST(Errors, Programs_are_told_what_they_can_act_upon) {
  EXPECT_EQ(errno_of(make_error_code(Errc::busy)), EBUSY);
  EXPECT_EQ(errno_of(make_error_code(Errc::no_space)), ENOSPC);
  EXPECT_EQ(errno_of(make_error_code(Errc::stale_epoch)), ESTALE);
  EXPECT_EQ(errno_of(make_error_code(Errc::lost_writes)), EIO);
}

}  // namespace
}  // namespace pstorage::mount
