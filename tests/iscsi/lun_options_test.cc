#include "iscsi/lun_options.h"

#include <gtest/gtest.h>

#include "iscsi/big_endian.h"

namespace pstorage::iscsi {
namespace {

constexpr char const* uuid = "6a1f0f4e-2f0b-4f0e-9b53-0d2f3c0a9d11";

TEST(Lun_options, Are_read_and_checked) {
  auto const options = parse_lun_options(std::string("size=1073741824;uuid=") + uuid +
                                         ";patience=5;reservations=/run/x;readonly=1");
  ASSERT_TRUE(options.has_value());
  EXPECT_EQ(options.value().size_bytes, 1073741824u);
  EXPECT_EQ(uuid_text(options.value().uuid), uuid);
  EXPECT_EQ(options.value().patience_seconds, 5u);
  EXPECT_EQ(options.value().reservations_path, "/run/x");
  EXPECT_TRUE(options.value().is_read_only);
  auto const in_a_volume =
      parse_lun_options(std::string("size=512;uuid=") + uuid +
                        ";reservations-uri=nbd+unix:///r/u?socket=/run/nbd.sock");
  ASSERT_TRUE(in_a_volume.has_value());
  EXPECT_EQ(in_a_volume.value().reservations_uri, "nbd+unix:///r/u?socket=/run/nbd.sock");
  EXPECT_FALSE(parse_lun_options(std::string("size=512;uuid=") + uuid +
                                 ";reservations=/x;reservations-uri=nbd+unix:///r")
                   .has_value());
  for (auto const* const bad :
       {"", "size=1024", "uuid=6a1f0f4e-2f0b-4f0e-9b53-0d2f3c0a9d11", "size=1000;uuid=x",
        "size=-512", "size=99999999999999999999", "colour=red", "size=512;patience=0"}) {
    EXPECT_FALSE(parse_lun_options(bad).has_value()) << bad;
  }
}

TEST(Lun_options, Gateways_are_groups) {
  auto const with = [](std::string const& more) {
    return parse_lun_options(std::string("size=512;uuid=") + uuid + more);
  };
  EXPECT_FALSE(with("").value().groups.is_any());
  auto const groups = with(";groups=1/2/7;group=2;active=7").value().groups;
  EXPECT_EQ(groups, (Port_groups{.all = {1, 2, 7}, .own = 2, .active = 7}));
  EXPECT_TRUE(groups.is_standby());
  EXPECT_FALSE(with(";groups=1/2;group=2;active=2").value().groups.is_standby());
  EXPECT_TRUE(with(";groups=1/2;group=2;active=0").value().groups.is_standby());
  for (auto const* const bad :
       {";groups=1/2;group=3", ";groups=2/1", ";groups=1/1", ";groups=0/1", ";groups=1/x",
        ";groups=1/70000", ";group=-1", ";groups=1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17"}) {
    EXPECT_FALSE(with(bad).has_value()) << bad;
  }
}

TEST(Lun_options, A_new_size_is_a_multiple_of_sectors) {
  EXPECT_EQ(parse_size_parameter("pst_size=4096").value(), 4096u);
  EXPECT_FALSE(parse_size_parameter("pst_size=4095").has_value());
  EXPECT_FALSE(parse_size_parameter("pst_size=").has_value());
  EXPECT_FALSE(parse_size_parameter("online=1").has_value());
}

TEST(Vital_product_data, Two_volumes_never_share_an_identity) {
  auto const one = parse_uuid(uuid).value();
  auto other = one;
  other[15] ^= 1;
  EXPECT_NE(identification_page(one, {}), identification_page(other, {}));
  EXPECT_NE(serial_number_page(one), serial_number_page(other));
  auto const page = identification_page(one, {});
  EXPECT_EQ(page[1], 3);  // NAA first: what Linux names the disk after
  EXPECT_EQ(page[3], 8);
  EXPECT_EQ(page[4] >> 4, 3);  // locally assigned
  EXPECT_FALSE(parse_uuid("6a1f0f4e2f0b4f0e9b530d2f3c0a9d11").has_value());
}

TEST(Vital_product_data, Pages_fit_what_tgtd_can_send) {
  auto const id = parse_uuid(uuid).value();
  Port_groups const several{.all = {1, 2}, .own = 2, .active = 1};
  for (auto const& page :
       {serial_number_page(id), identification_page(id, several), block_limits_page(512),
        block_limits_page(4096), characteristics_page(), provisioning_page()}) {
    EXPECT_LT(page.size(), 252u);
  }
  auto const limits = block_limits_page(512);
  EXPECT_EQ(get_be<4>(limits, 16), 1u << 20);  // initiators' tests want at most 1 Mi blocks
  EXPECT_EQ(get_be<2>(limits, 2), 8u);
  EXPECT_EQ(get_be<2>(block_limits_page(4096), 2), 1u);
}

}  // namespace
}  // namespace pstorage::iscsi
