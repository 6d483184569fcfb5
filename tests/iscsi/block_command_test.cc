#include "iscsi/block_command.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/iscsi/cdb.h"

namespace pstorage::iscsi {
namespace {

constexpr Geometry disk{.size = 1u << 30, .block = 512};
constexpr std::uint64_t blocks = (1u << 30) / 512;

Block_command parsed(Cdb const& cdb) {
  std::optional<Sense> refused;
  auto const command = parse(cdb, refused);
  EXPECT_TRUE(command.has_value());
  EXPECT_FALSE(refused.has_value());
  return command.value_or(Block_command{});
}

std::optional<Sense> refusal(Cdb const& cdb) {
  std::optional<Sense> refused;
  EXPECT_TRUE(parse(cdb, refused).has_value());
  return refused;
}

TEST(Block_command, Addresses_and_lengths_are_read_from_every_form) {
  auto const six = parsed(cdb_6(opcode::read_6, 0x1fffff, 0));
  EXPECT_EQ(six.lba, 0x1fffffu);
  EXPECT_EQ(six.blocks, 256u);
  auto const ten = parsed(cdb_10(opcode::write_10, 0xfffffffe, 0xffff, 0x08));
  EXPECT_EQ(ten.operation, Operation::write);
  EXPECT_EQ(ten.lba, 0xfffffffeu);
  EXPECT_EQ(ten.blocks, 0xffffu);
  EXPECT_TRUE(ten.fua);
  auto const sixteen = parsed(cdb_16(opcode::read_16, 0x123456789abcdef0, 0xffffffff));
  EXPECT_EQ(sixteen.lba, 0x123456789abcdef0u);
  EXPECT_EQ(sixteen.blocks, 0xffffffffu);
  Cdb compare = cdb_16(opcode::compare_and_write, 7, 0xffffffff);
  compare[13] = 3;
  EXPECT_EQ(parsed(compare).blocks, 3u);
}

TEST(Block_command, A_read_6_has_no_flags_in_its_address) {
  EXPECT_EQ(parsed(cdb_6(opcode::read_6, 0x180000, 1)).fua, false);
}

TEST(Block_command, What_is_not_a_block_command_is_left_to_others) {
  std::optional<Sense> refused;
  EXPECT_FALSE(parse(Cdb{opcode::inquiry}, refused).has_value());
  EXPECT_FALSE(parse(Cdb{opcode::service_action_in, 0x10}, refused).has_value());
  EXPECT_TRUE(parse(Cdb{opcode::service_action_in, 0x12}, refused).has_value());
  std::array<std::uint8_t, 4> const cut{opcode::read_10};
  EXPECT_FALSE(parse(cut, refused).has_value());
  EXPECT_FALSE(parse({}, refused).has_value());
}

TEST(Block_command, Unsupported_fields_are_refused) {
  EXPECT_EQ(refusal(cdb_10(opcode::read_10, 0, 1, 0x20)), sense::invalid_field_in_cdb);
  EXPECT_EQ(refusal(cdb_16(opcode::write_same_16, 0, 1, 0x10)), sense::invalid_field_in_cdb);
  EXPECT_EQ(refusal(cdb_10(opcode::write_same_10, 0, 1, 0x04)), sense::invalid_field_in_cdb);
  EXPECT_EQ(refusal(cdb_10(opcode::unmap, 0, 24, 0x01)), sense::invalid_field_in_cdb);
  EXPECT_EQ(refusal(cdb_10(opcode::verify_10, 0, 1, 0x06)), sense::invalid_field_in_cdb);
  EXPECT_EQ(refusal(cdb_10(opcode::verify_10, 0, 1, 0x02)), std::nullopt);
}

TEST(Block_command, Nothing_outside_the_disk_is_touched) {
  auto const check_read = [](std::uint64_t lba, std::uint32_t count) {
    return check(parsed(cdb_16(opcode::read_16, lba, count)), disk, 0);
  };
  EXPECT_EQ(check_read(blocks - 1, 1), std::nullopt);
  EXPECT_EQ(check_read(blocks - 1, 2), sense::lba_out_of_range);
  EXPECT_EQ(check_read(blocks, 1), sense::lba_out_of_range);
  EXPECT_EQ(check_read(blocks, 0), sense::lba_out_of_range);
  EXPECT_EQ(check_read(blocks - 1, 0), std::nullopt);
  EXPECT_EQ(check_read(UINT64_MAX, 2), sense::lba_out_of_range);  // no wrap to 1
  EXPECT_EQ(check_read(0, UINT32_MAX), sense::lba_out_of_range);
  // LBA << 9 is 0 in 64 bits: must not look like the start of the disk.
  auto const status = parsed(Cdb{opcode::service_action_in, 0x12, 0x80});
  EXPECT_EQ(check(status, disk, 0), sense::lba_out_of_range);
}

TEST(Block_command, Limits_hold) {
  auto const read_bytes = transfer_bytes_max / 512;
  EXPECT_EQ(check(parsed(cdb_16(opcode::read_16, 0, read_bytes)), disk, 0), std::nullopt);
  EXPECT_EQ(check(parsed(cdb_16(opcode::read_16, 0, read_bytes + 1)), disk, 0),
            sense::invalid_field_in_cdb);
  Cdb compare = cdb_16(opcode::compare_and_write, 0, 0);
  compare[13] = compare_blocks_max + 1;
  EXPECT_EQ(check(parsed(compare), disk, 0), sense::invalid_field_in_cdb);
  Geometry const huge{.size = 1ull << 40, .block = 512};
  auto const whole = parsed(cdb_16(opcode::write_same_16, 0, 0));
  EXPECT_EQ(check(whole, huge, 512), sense::invalid_field_in_cdb);
  EXPECT_EQ(check(whole, disk, 512), std::nullopt);
  EXPECT_EQ(check(whole, disk, 1024), sense::parameter_length);
}

TEST(Block_command, A_write_protected_disk_takes_no_write) {
  Geometry protected_disk = disk;
  protected_disk.is_read_only = true;
  EXPECT_EQ(check(parsed(cdb_10(opcode::write_10, 0, 1)), protected_disk, 512),
            sense::write_protected);
  EXPECT_EQ(check(parsed(cdb_10(opcode::unmap, 0, 24)), protected_disk, 24),
            sense::write_protected);
  EXPECT_EQ(check(parsed(cdb_10(opcode::read_10, 0, 1)), protected_disk, 0), std::nullopt);
}

TEST(Block_command, Whatever_an_initiator_sends_is_refused_or_stays_on_the_disk) {
  std::mt19937_64 random(11);
  std::size_t accepted = 0;
  for (int i = 0; i < 200000; ++i) {
    Cdb cdb;
    for (auto& byte : cdb) byte = static_cast<std::uint8_t>(random() % 4 == 0 ? random() : 0);
    std::array<std::uint8_t, 11> const codes{
        opcode::read_10,       opcode::read_16, opcode::write_12,          opcode::write_same_16,
        opcode::verify_16,     opcode::read_6,  opcode::compare_and_write, opcode::or_write_16,
        opcode::write_same_10, opcode::unmap,   opcode::service_action_in};
    cdb[0] = codes[random() % codes.size()];
    std::optional<Sense> refused;
    auto const command = parse(std::span(cdb).first(random() % 17), refused);
    if (!command || refused || check(*command, disk, 512)) continue;
    ++accepted;
    ASSERT_LE(command->blocks, blocks);
    ASSERT_LE(command->lba, blocks - command->blocks);
  }
  EXPECT_GT(accepted, 1000u);
}

}  // namespace
}  // namespace pstorage::iscsi
