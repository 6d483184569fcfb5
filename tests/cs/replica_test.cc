#include "cs/replica.h"

#include <gtest/gtest.h>

namespace pstorage::cs {
namespace {

constexpr Epoch epoch{5};
constexpr Version version{3};

Replica opened(Open_terms terms = {epoch, version, false, {}}) {
  Replica replica;
  replica.chunk_size = 1u << 20;
  replica.version = {2};
  EXPECT_EQ(replica.open(terms, 1u << 20), Errc::ok);
  return replica;
}

Header request(std::uint32_t sequence, Epoch at = epoch, Version v = version) {
  Header header;
  header.stamp = Stamp::of(at, sequence);
  header.version = v;
  header.length = block_bytes;
  return header;
}

Verdict verdict(Replica const& replica, Header const& header, Epoch seal = epoch) {
  Errc why = Errc::ok;
  return replica.check_write(header, seal, why);
}

TEST(Replica, A_sealed_chunk_refuses_the_old_epoch) {
  Replica const replica = opened();
  EXPECT_EQ(replica.check_read(request(0), Epoch{6}), Errc::stale_epoch);
  EXPECT_EQ(replica.check_table(request(0), Epoch{6}), Errc::stale_epoch);
  EXPECT_EQ(replica.check_open(request(0), Epoch{6}), Errc::stale_epoch);
}

TEST(Replica, A_chunk_that_was_not_opened_serves_nobody) {
  Replica replica;
  replica.chunk_size = 1u << 20;
  EXPECT_EQ(replica.check_read(request(0), {}), Errc::not_open);
}

TEST(Replica, An_epoch_above_the_opened_one_is_not_open) {
  EXPECT_EQ(opened().check_read(request(0, {6}), {6}), Errc::not_open);
}

TEST(Replica, Another_version_is_stale) {
  EXPECT_EQ(opened().check_read(request(0, epoch, {2}), epoch), Errc::stale_version);
  EXPECT_EQ(opened().check_read(request(0, epoch, {4}), epoch), Errc::stale_version);
}

TEST(Replica, Opening_at_a_lower_version_is_refused_and_changes_nothing) {
  Replica replica = opened();
  EXPECT_EQ(replica.open({Epoch{6}, {2}, false, {}}, 1u << 20), Errc::stale_version);
  EXPECT_EQ(replica.check_read(request(0), epoch), Errc::ok);
}

TEST(Replica, A_stamp_not_above_the_last_of_the_same_open_is_a_duplicate) {
  Replica replica = opened();
  EXPECT_EQ(verdict(replica, request(4)), Verdict::apply);
  replica.accepted(Stamp::of(epoch, 4));
  EXPECT_EQ(verdict(replica, request(4)), Verdict::duplicate);
  EXPECT_EQ(verdict(replica, request(3)), Verdict::duplicate);
  EXPECT_EQ(verdict(replica, request(5)), Verdict::apply);
  EXPECT_EQ(verdict(replica, request(0)), Verdict::refuse);
}

TEST(Replica, Opening_again_with_the_same_terms_keeps_the_duplicates) {
  Replica replica = opened();
  replica.accepted(Stamp::of(epoch, 4));
  EXPECT_EQ(replica.open({epoch, version, false, {}}, 1u << 20), Errc::ok);
  EXPECT_EQ(verdict(replica, request(4)), Verdict::duplicate);
}

TEST(Replica, A_new_epoch_numbers_from_one_again) {
  Replica replica = opened();
  replica.accepted(Stamp::of(epoch, 400));
  EXPECT_EQ(replica.open({Epoch{6}, {4}, false, {}}, 1u << 20), Errc::ok);
  EXPECT_EQ(verdict(replica, request(1, {6}, {4}), {6}), Verdict::apply);
  EXPECT_EQ(replica.last_stamp, Stamp::of(epoch, 400));
}

TEST(Replica, A_syncing_replica_takes_writes_and_shows_its_table_but_serves_no_reads) {
  Replica const replica = opened({epoch, version, true, Stamp::of(epoch, 7)});
  EXPECT_EQ(verdict(replica, request(7)), Verdict::apply);
  EXPECT_EQ(replica.check_table(request(0), epoch), Errc::ok);
  EXPECT_EQ(replica.check_read(request(0), epoch), Errc::stale_version);
  Header pull = request(0);
  pull.version = {};
  EXPECT_EQ(replica.check_pull(pull, Operation::pull), Errc::stale_version);
  EXPECT_EQ(replica.check_pull(pull, Operation::table), Errc::ok);
  EXPECT_TRUE(replica.has_writer());
}

TEST(Replica, A_source_that_the_writer_has_not_opened_at_the_new_version_is_no_source_yet) {
  Replica replica = opened();
  Header pull = request(0);
  pull.version = {4};
  EXPECT_EQ(replica.check_pull(pull, Operation::pull), Errc::stale_version);
  EXPECT_EQ(replica.open({epoch, {4}, false, {}}, 1u << 20), Errc::ok);
  EXPECT_EQ(replica.check_pull(pull, Operation::pull), Errc::ok);
}

TEST(Replica, Requests_outside_the_chunk_are_malformed) {
  Replica const replica = opened();
  Header header = request(0);
  header.offset = 1u << 20;
  EXPECT_EQ(replica.check_read(header, epoch), Errc::bad_request);
  header.offset = 0xfffff000;
  header.length = 0x2000;
  EXPECT_EQ(replica.check_read(header, epoch), Errc::bad_request);
  header = request(0);
  header.length = 0;
  EXPECT_EQ(replica.check_read(header, epoch), Errc::bad_request);
}

TEST(Replica, A_write_proves_that_the_writer_has_reconciled) {
  Replica replica = opened();
  replica.unclean = true;
  replica.accepted(Stamp::of(epoch, 1));
  EXPECT_FALSE(replica.unclean);
}

TEST(Replica, Sync_orders_after_the_writer_has_joined_keep_the_join_stamp) {
  Replica replica = opened({epoch, version, true, Stamp::of(epoch, 7)});
  EXPECT_EQ(replica.begin_sync(version), Errc::ok);
  EXPECT_TRUE(replica.has_writer());
  EXPECT_EQ(replica.begin_sync({9}), Errc::ok);
  EXPECT_FALSE(replica.has_writer());
  EXPECT_EQ(replica.check_read(request(0), epoch), Errc::not_open);
  EXPECT_EQ(replica.begin_sync({8}), Errc::stale_version);
}

}  // namespace
}  // namespace pstorage::cs
