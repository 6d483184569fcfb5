#include "iscsi/tool/target_config.h"

#include <gtest/gtest.h>

namespace pstorage::iscsi {
namespace {

TEST(Target_config, A_target_is_named_by_its_iqn_or_its_name) {
  EXPECT_EQ(target_name("kvm1").value(), "kvm1");
  EXPECT_EQ(target_name("iqn.2014-04.com.pstorage:kvm1").value(), "kvm1");
  for (auto const* const bad : {"", "K", "a b", "a/b", "..", "iqn.2014-04.com.pstorage:", "a:b"}) {
    EXPECT_FALSE(target_name(bad).has_value()) << bad;
  }
}

TEST(Target_config, Addresses_may_have_a_port) {
  EXPECT_EQ(parse_portal("10.0.0.1").value().text(), "10.0.0.1:3260");
  EXPECT_EQ(parse_portal("10.0.0.1:861").value().port, 861);
  EXPECT_EQ(parse_portal("[fd00::1]:3261").value().text(), "[fd00::1]:3261");
  EXPECT_EQ(parse_portal("fd00::2").value().text(), "[fd00::2]:3260");
  for (auto const* const bad : {"", ":", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:70000", "a b",
                                "[fd00::1", "[fd00::1]x", "x,y"}) {
    EXPECT_FALSE(parse_portal(bad).has_value()) << bad;
  }
}

TEST(Target_config, Hosts_may_have_portals_of_their_own) {
  Target target;
  target.name = "t";
  target.host = "aa";
  target.address = parse_portal("10.0.0.1").value();
  EXPECT_EQ(target.portal("bb").value().text(), "10.0.0.1:3260");
  EXPECT_FALSE(add_portal(target, "aa", parse_portal("10.0.0.9").value()).has_value());
  EXPECT_FALSE(add_portal(target, "bb", target.address).has_value());
  EXPECT_TRUE(target.portals.empty());
  EXPECT_TRUE(add_portal(target, "bb", parse_portal("10.0.0.2").value()).has_value());
  EXPECT_TRUE(add_portal(target, "cc", parse_portal("10.0.0.3").value()).has_value());
  EXPECT_EQ(target.portal("aa").value().group, 1);
  EXPECT_EQ(target.portal("bb").value().group, 2);
  EXPECT_EQ(target.portal("cc").value().group, 3);
  EXPECT_TRUE(target.may_serve("cc"));
  EXPECT_FALSE(target.may_serve("dd"));
  EXPECT_FALSE(target.portal("dd").has_value());
  target.host = "bb";  // it was taken over
  EXPECT_EQ(target.portal_texts().front(), "10.0.0.2:3260");
  EXPECT_FALSE(remove_portal(target, "bb").has_value());
  EXPECT_TRUE(remove_portal(target, "aa").has_value());
  EXPECT_TRUE(add_portal(target, "ee", parse_portal("10.0.0.5").value()).has_value());
  EXPECT_EQ(target.portal("ee").value().group, 1) << "a number that is free again";
  EXPECT_TRUE(remove_portal(target, "ee").has_value());
  EXPECT_TRUE(remove_portal(target, "cc").has_value());
  EXPECT_TRUE(target.portals.empty());
  EXPECT_EQ(target.address.text(), "10.0.0.2:3260");
}

TEST(Target_config, Lun_numbers_users_and_secrets_are_checked) {
  EXPECT_EQ(lun_number("255").value(), 255u);
  for (auto const* const bad : {"0", "256", "-1", "", "1x"}) {
    EXPECT_FALSE(lun_number(bad).has_value()) << bad;
  }
  EXPECT_TRUE(check_user("alice@host").has_value());
  EXPECT_FALSE(check_user("a,password=x").has_value());
  EXPECT_TRUE(check_secret("twelve-chars").has_value());
  EXPECT_FALSE(check_secret("eleven-char").has_value());
  EXPECT_FALSE(check_secret("with,comma-and-more").has_value());
  EXPECT_FALSE(check_secret("with blank and more").has_value());
  EXPECT_TRUE(check_allowed("iqn.1993-08.org.debian:01:abc").has_value());
  EXPECT_TRUE(check_allowed("10.0.0.0/24").has_value());
  EXPECT_FALSE(check_allowed("anybody").has_value());
  EXPECT_FALSE(check_allowed("iqn.x,initiator-name=y").has_value());
}

TEST(Target_config, Is_read_as_it_was_written) {
  Target target;
  target.name = "kvm1";
  target.address = parse_portal("10.0.0.1").value();
  target.portals = {{"aa", {"10.0.0.1", 3260, 1}}, {"bb", {"fd00::1", 861, 2}}};
  target.should_run = true;
  target.luns[2] = {"iscsi/kvm1/lun2", "6a1f0f4e-2f0b-4f0e-9b53-0d2f3c0a9d11", true};
  target.incoming = {"alice"};
  target.outgoing = "target";
  target.allowed = {"iqn.x:y"};
  auto const properties = to_properties(target);
  auto const read = from_properties("kvm1", properties);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(to_properties(read.value()), properties);
  EXPECT_TRUE(read.value().luns.at(2).is_owned);

  auto damaged = properties;
  damaged["lun.2"] = "{}";
  EXPECT_FALSE(from_properties("kvm1", damaged).has_value());
  damaged = properties;
  damaged["lun.x"] = properties.at("lun.2");
  EXPECT_FALSE(from_properties("kvm1", damaged).has_value());
  damaged = properties;
  damaged["target"] = "no JSON";
  EXPECT_FALSE(from_properties("kvm1", damaged).has_value());
  EXPECT_FALSE(from_properties("kvm1", {}).has_value());
}

}  // namespace
}  // namespace pstorage::iscsi
