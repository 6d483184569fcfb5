#include "iscsi/port_groups.h"

#include <gtest/gtest.h>

#include "iscsi/big_endian.h"
#include "iscsi/scsi.h"
#include "iscsi/vital_product_data.h"

namespace pstorage::iscsi {
namespace {

Port_groups const second_of_three{.all = {1, 2, 5}, .own = 2, .active = 5};

TEST(Port_groups, Are_reported_with_their_ports_and_states) {
  auto const page = report(second_of_three, Access_state::standby, false);
  ASSERT_EQ(page.size(), 4u + 3 * 12);
  EXPECT_EQ(get_be<4>(page, 0), page.size() - 4);
  for (auto const& [at, group, state] :
       {std::tuple{4, 1, 2}, std::tuple{16, 2, 2}, std::tuple{28, 5, 0}}) {
    auto const one = std::span(page).subspan(static_cast<std::size_t>(at), 12);
    EXPECT_EQ(one[0], state);
    EXPECT_EQ(one[1], 0x0d);
    EXPECT_EQ(get_be<2>(one, 2), static_cast<std::uint64_t>(group));
    EXPECT_EQ(one[7], 1) << "ports";
    EXPECT_EQ(get_be<2>(one, 10), static_cast<std::uint64_t>(group)) << "its port";
  }
}

TEST(Port_groups, Have_a_longer_header_when_asked) {
  auto const page = report(second_of_three, Access_state::unavailable, true);
  ASSERT_EQ(page.size(), 8u + 3 * 12);
  EXPECT_EQ(get_be<4>(page, 0), page.size() - 4);
  EXPECT_EQ(page[4], 0x10);
  EXPECT_EQ(page[8 + 12], 3) << "our own cannot reach the disk";
}

TEST(Port_groups, In_standby_nothing_reaches_the_disk) {
  auto const works = [](std::uint8_t code, std::uint8_t action = 0) {
    std::vector<std::uint8_t> cdb(16);
    cdb[0] = code;
    cdb[1] = action;
    return works_in_standby(cdb);
  };
  EXPECT_TRUE(works(opcode::inquiry));
  EXPECT_TRUE(works(opcode::report_luns));
  EXPECT_TRUE(works(opcode::maintenance_in, report_port_groups_action));
  EXPECT_TRUE(works(opcode::service_action_in, read_capacity_16_action));
  EXPECT_FALSE(works(opcode::service_action_in, get_lba_status_action));
  for (auto const code :
       {opcode::test_unit_ready, opcode::read_10, opcode::write_16, opcode::unmap,
        opcode::compare_and_write, opcode::synchronize_cache_10, opcode::persistent_reserve_in,
        opcode::persistent_reserve_out, opcode::reserve_6, opcode::start_stop_unit}) {
    EXPECT_FALSE(works(code)) << static_cast<int>(code);
  }
}

TEST(Port_groups, Every_gateway_names_its_own_port_and_group) {
  Volume_uuid const id{1, 2, 3};
  auto const one = identification_page(id, {.all = {1, 2}, .own = 1, .active = 1});
  auto const other = identification_page(id, {.all = {1, 2}, .own = 2, .active = 1});
  ASSERT_EQ(one.size(), other.size());
  std::size_t designators = 0;
  for (std::size_t at = 0; at + 4 <= one.size(); at += 4u + one[at + 3]) {
    auto const type = one[at + 1] & 0x0f;
    bool const is_of_the_port = type == 4 || type == 5;
    auto const value = std::span(one).subspan(at + 4, one[at + 3]);
    auto const other_value = std::span(other).subspan(at + 4, one[at + 3]);
    EXPECT_EQ(std::equal(value.begin(), value.end(), other_value.begin()), !is_of_the_port);
    if (!is_of_the_port) continue;
    ++designators;
    EXPECT_EQ(get_be<4>(value, 0), 1u);
    EXPECT_EQ(get_be<4>(other_value, 0), 2u);
  }
  EXPECT_EQ(designators, 2u);
}

}  // namespace
}  // namespace pstorage::iscsi
