// Kernel NBD or FUSE: for every kind of host, with and without a wish.
#include "blockdev/ct/attach_way.h"

#include <gtest/gtest.h>

namespace pstorage::ct {
namespace {

Host_ways const all{true, true, "/mnt/c"};
Host_ways const no_kernel{false, true, "/mnt/c"};
Host_ways const no_server{true, false, "/mnt/c"};
Host_ways const no_view{true, true, ""};
Host_ways const nothing{false, false, ""};
Host_ways const only_kernel{true, false, ""};

/// What is chosen, or what to do first.
std::string chosen(std::optional<Way> wish, Host_ways const& host) {
  auto const way = choose_way(wish, host, "c");
  if (way.has_error()) return way.error().text;
  return way.value() == Way::nbd ? "nbd" : "fuse";
}

bool has(std::string const& text, std::string const& part) {
  return text.find(part) != std::string::npos;
}

TEST(Attach_way, The_kernel_client_comes_first_where_it_is_served) {
  EXPECT_EQ(chosen({}, all), "nbd");
  EXPECT_EQ(chosen({}, no_view), "nbd");
  EXPECT_EQ(chosen({}, no_kernel), "fuse");
  EXPECT_EQ(chosen({}, no_server), "fuse");
}

TEST(Attach_way, A_wish_is_kept_or_refused) {
  EXPECT_EQ(chosen(Way::nbd, all), "nbd");
  EXPECT_EQ(chosen(Way::fuse, all), "fuse");
  EXPECT_TRUE(has(chosen(Way::nbd, no_kernel), "no NBD client"));
  EXPECT_TRUE(has(chosen(Way::nbd, no_server), "service pstorage-nbd start"));
  EXPECT_TRUE(has(chosen(Way::fuse, no_view), "pstorage-mount -c c /mnt/c"));
}

TEST(Attach_way, A_host_without_any_is_told_what_it_can_start) {
  EXPECT_TRUE(has(chosen({}, nothing), "pstorage-mount -c c /mnt/c"));
  EXPECT_FALSE(has(chosen({}, nothing), "pstorage-nbd"));
  EXPECT_TRUE(has(chosen({}, only_kernel), "pstorage-mount -c c /mnt/c"));
  EXPECT_TRUE(has(chosen({}, only_kernel), "service pstorage-nbd start"));
}

TEST(Attach_way, Its_names) {
  EXPECT_EQ(parse_way("nbd").value(), Way::nbd);
  EXPECT_EQ(parse_way("fuse").value(), Way::fuse);
  EXPECT_EQ(parse_way("").value(), std::nullopt);
  EXPECT_TRUE(parse_way("NBD").has_error());
}

}  // namespace
}  // namespace pstorage::ct
