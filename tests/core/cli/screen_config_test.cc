#include "core/cli/screen_config.h"

#include <gtest/gtest.h>

namespace pstorage::cli {
namespace {

TEST(Screen_config, Reads_the_documented_names) {
  auto const config = parse_screen_config(
      "# screens\n\nnumeric.addrs=1\nrefresh.time=500\nmds.sort=lag\ncs.sort=iolat=inv,host\n"
      "clnt.sort=read\n");
  ASSERT_TRUE(config.has_value()) << config.error().text;
  EXPECT_TRUE(config.value().is_numeric);
  EXPECT_EQ(config.value().refresh_ms, 500u);
  EXPECT_EQ(config.value().mds.size(), 1u);
  ASSERT_EQ(config.value().cs.size(), 2u);
  EXPECT_TRUE(config.value().cs[0].is_inverted);
  EXPECT_FALSE(config.value().cs[1].is_inverted);
  EXPECT_EQ(config.value().client.size(), 1u);
}

TEST(Screen_config, Says_which_line_is_wrong_and_why) {
  auto const refusal = [](std::string const& text) {
    auto const config = parse_screen_config(text);
    return config.has_value() ? "accepted" : config.error().text;
  };
  EXPECT_EQ(refusal("\nrefresh.tme=1"),
            "line 2: unknown name 'refresh.tme': did you mean 'refresh.time'?");
  EXPECT_EQ(refusal("numeric.addrs"), "line 1: give NAME=VALUE");
  EXPECT_EQ(refusal("numeric.addrs=yes"), "line 1: numeric.addrs: 0 or 1");
  for (auto const* bad : {"refresh.time=", "refresh.time=99", "refresh.time=5s"})
    EXPECT_EQ(refusal(bad), "line 1: refresh.time: milliseconds from 100 to 3600000") << bad;
  EXPECT_NE(refusal("cs.sort=colour").find("no column 'colour'"), std::string::npos);
  EXPECT_NE(refusal("freespace.threshold.mb=5").find("pstorage set-config"), std::string::npos);
}

}  // namespace
}  // namespace pstorage::cli
