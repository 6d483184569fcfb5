#include "tests/cs/fake_mds.h"
#include "tests/cs/server_world.h"

namespace pstorage::cs {
namespace {

constexpr Epoch one{1};
constexpr Stamp at(std::uint32_t sequence) { return Stamp::of(one, sequence); }
constexpr std::size_t source = 0, newcomer = 1;

/// Server 1025 holds the chunk at version 1; 1026 is to get it at version 2.
class Sync : public testing::Test {
 protected:
  Sync() : world_(2), mds_(world_.hub) {
    for (auto& node : world_.nodes) {
      node->die(false);
      node->options.mds_servers = {Fake_mds::address()};
      node->start();
      node->server->serve({node->address()});
    }
    world_.reconnect();
    world_.run(std::chrono::milliseconds(200));
    EXPECT_EQ(world_.open(1, 1, source).status(), 0u);
    for (std::uint32_t i = 0; i < 10; ++i) {
      EXPECT_EQ(world_.write(at(i + 1), 1, i * 20, 1 + i, source), Errc::ok);
    }
    EXPECT_EQ(world_.write(at(11), 1, 210, 30, source), Errc::ok);
    zero(at(12), 1, 0, 1, source);
  }
  void zero(Stamp stamp, std::uint32_t version, std::uint32_t first, std::uint32_t blocks,
            std::size_t server) {
    Message const answer = world_.ask(
        *world_.clients[server], world_.request(Operation::zero, stamp, version, first, blocks));
    EXPECT_EQ(answer.header.status, Errc::ok);
  }
  void order(bool writer_expected) {
    proto::Mds_push push;
    auto& order = *push.mutable_sync_orders()->add_orders();
    order.set_chunk(Server_world::chunk.value);
    order.set_file(7);
    order.set_version(2);
    order.set_chunk_size(test_chunk_size);
    order.set_writer_expected(writer_expected);
    auto& from = *order.add_sources();
    from.set_cs(1025);
    from.set_host_id(1025);
    from.add_addresses(world_.nodes[source]->address().text());
    mds_.push(1026, push);
  }
  std::vector<Block_record> table(std::size_t server) {
    Message const answer =
        world_.ask(*world_.peers[server],
                   world_.request(Operation::table, {}, 0, 0, test_chunk_size / block_bytes));
    EXPECT_EQ(answer.header.status, Errc::ok);
    std::vector<Block_record> records(answer.meta.size() / sizeof(Block_record));
    std::memcpy(records.data(), answer.meta.data(), answer.meta.size());
    return records;
  }
  bool tables_are_equal() {
    auto const a = table(source), b = table(newcomer);
    return a.size() == b.size() &&
           std::memcmp(a.data(), b.data(), a.size() * sizeof(Block_record)) == 0;
  }
  bool wait_for_done(std::size_t count) {
    for (int i = 0; i < 1000 && mds_.sync_dones().size() < count; ++i) world_.run(tick_interval);
    return mds_.sync_dones().size() >= count;
  }
  /// The source's power fails in an unflushed large write, under one epoch after the other, until
  /// blocks are torn: these.
  std::vector<std::uint32_t> tear_at_source() {
    std::vector<std::uint32_t> torn;
    while (epoch_ < 60 && torn.empty()) {
      ++epoch_;
      world_.open(epoch_, 1, source);
      EXPECT_EQ(world_.write(Stamp::of({epoch_}, 1), 1, 0, 40, source), Errc::ok);
      EXPECT_EQ(world_.flush({epoch_}, source), Errc::ok);
      EXPECT_EQ(world_.write(Stamp::of({epoch_}, 2), 1, 0, 40, source), Errc::ok);
      world_.nodes[source]->die(true);
      world_.nodes[source]->start();
      world_.nodes[source]->server->serve({world_.nodes[source]->address()});
      world_.reconnect();
      auto const records = table(source);
      for (std::uint32_t block = 0; block < 40; ++block)
        if ((records[block].flags & block_torn) != 0) torn.push_back(block);
    }
    EXPECT_FALSE(torn.empty()) << "nothing was ever torn";
    return torn;
  }
  Slice pull(std::size_t server, std::uint32_t block) {
    return world_.ask(*world_.peers[server], world_.request(Operation::pull, {}, 0, block, 1)).data;
  }
  Errc accept(std::size_t server, std::uint32_t block) {
    proto::Cs_request request;
    auto& torn = *request.mutable_accept_torn();
    torn.set_chunk(Server_world::chunk.value);
    torn.set_file(7);
    torn.set_epoch(epoch_);
    torn.set_version(3);
    torn.add_blocks(block);
    torn.set_stamp(table(server)[block].stamp);
    return static_cast<Errc>(world_.control(request, server).status());
  }
  void accept_at_newcomer(bool power_fails_there, std::vector<std::uint32_t> const& torn) {
    order(false);
    ASSERT_TRUE(wait_for_done(1));
    EXPECT_FALSE(mds_.sync_dones()[0].sync_done().failed());
    EXPECT_TRUE(tables_are_equal());
    std::vector<Slice> left;
    for (auto const block : torn) left.push_back(pull(source, block));
    world_.nodes[source]->die(false);
    if (power_fails_there) {
      world_.nodes[newcomer]->die(true);
      world_.nodes[newcomer]->start();
      world_.reconnect();
    }
    EXPECT_TRUE(world_.open(++epoch_, 3, newcomer, 0, false).unclean());
    for (std::size_t i = 0; i < torn.size(); ++i) {
      EXPECT_EQ(world_.read({epoch_}, 3, torn[i], 1, newcomer).header.status, Errc::corrupt);
      EXPECT_EQ(accept(newcomer, torn[i]), Errc::ok);
      Message const read = world_.read({epoch_}, 3, torn[i], 1, newcomer);
      ASSERT_EQ(read.header.status, Errc::ok);
      ASSERT_EQ(left[i].size(), block_bytes);
      EXPECT_EQ(std::memcmp(read.data.data(), left[i].data(), block_bytes), 0);
    }
    world_.nodes[source]->start();
  }

  Server_world world_;
  Fake_mds mds_;
  std::uint32_t epoch_ = 1;
};

TEST_F(Sync, A_server_registers_and_sends_heartbeats) {
  world_.run(std::chrono::seconds(3));
  auto const registered = mds_.all([](auto const& request) { return request.has_register_cs(); });
  ASSERT_EQ(registered.size(), 2u);
  EXPECT_EQ(registered[0].register_cs().addresses(0), "cs1025:1");
  auto const beats = mds_.all([](auto const& request) { return request.has_cs_heartbeat(); });
  ASSERT_GE(beats.size(), 4u);
  EXPECT_GT(beats.back().cs_heartbeat().total_bytes(), 0u);
  EXPECT_FALSE(beats.back().cs_heartbeat().read_only());
}

TEST_F(Sync, A_newcomer_gets_everything_and_reports_when_it_is_durable) {
  order(false);
  ASSERT_TRUE(wait_for_done(1));
  auto const done = mds_.sync_dones()[0].sync_done();
  EXPECT_FALSE(done.failed()) << done.reason();
  EXPECT_EQ(done.version(), 2u);
  EXPECT_EQ(done.epoch(), 0u);
  EXPECT_TRUE(tables_are_equal());
  world_.nodes[newcomer]->die(true);
  world_.nodes[newcomer]->start();
  world_.reconnect();
  EXPECT_TRUE(tables_are_equal());
  EXPECT_EQ(world_.open(2, 3, newcomer, 0, false).status(), 0u);
  EXPECT_TRUE(world_.holds({2}, 3, 180, at(10), newcomer));
}

TEST_F(Sync, With_a_writer_expected_it_begins_only_when_one_has_joined) {
  order(true);
  world_.run(std::chrono::seconds(2));
  EXPECT_TRUE(mds_.sync_dones().empty());
  EXPECT_EQ(world_.open(1, 2, newcomer, at(13).value).status(), 0u);
  world_.run(std::chrono::seconds(2));
  EXPECT_TRUE(mds_.sync_dones().empty()) << "the source is not yet open at the new version";
  EXPECT_EQ(world_.open(1, 2, source).status(), 0u);
  ASSERT_TRUE(wait_for_done(1));
  EXPECT_EQ(mds_.sync_dones()[0].sync_done().epoch(), 1u);
  EXPECT_TRUE(tables_are_equal());
}

TEST_F(Sync, Blocks_that_the_writer_has_sent_are_kept) {
  order(true);
  EXPECT_EQ(world_.open(1, 2, newcomer, at(13).value).status(), 0u);
  // The newcomer has the write already, the source gets it later.
  EXPECT_EQ(world_.write(at(13), 2, 182, 4, newcomer), Errc::ok);
  EXPECT_EQ(world_.open(1, 2, source).status(), 0u);
  ASSERT_TRUE(wait_for_done(1));
  EXPECT_EQ(table(newcomer)[183].stamp, at(13).value);
  EXPECT_EQ(world_.write(at(13), 2, 182, 4, source), Errc::ok);
  EXPECT_TRUE(tables_are_equal());
}

TEST_F(Sync, A_stale_replica_only_pulls_what_differs) {
  EXPECT_EQ(world_.open(1, 1, newcomer).status(), 0u);
  EXPECT_EQ(world_.write(at(10), 1, 180, 10, newcomer), Errc::ok);
  EXPECT_EQ(world_.write(at(14), 1, 5, 1, newcomer), Errc::ok);  // never acknowledged by all
  order(false);
  ASSERT_TRUE(wait_for_done(1));
  EXPECT_TRUE(tables_are_equal());
  EXPECT_EQ(world_.open(2, 3, newcomer, 0, false).status(), 0u);
  EXPECT_TRUE(world_.holds({2}, 3, 189, at(10), newcomer));
}

TEST_F(Sync, After_a_sync_the_last_stamp_is_that_of_the_content_and_survives) {
  // Its own past is newer than anything that the others have: it must not pass for theirs.
  EXPECT_EQ(world_.open(1, 1, newcomer).status(), 0u);
  EXPECT_EQ(world_.write(at(90), 1, 5, 1, newcomer), Errc::ok);
  order(false);
  ASSERT_TRUE(wait_for_done(1));
  world_.nodes[newcomer]->die(true);
  world_.nodes[newcomer]->start();
  world_.reconnect();
  EXPECT_EQ(world_.open(2, 3, newcomer, 0, false).last_stamp(), at(12).value);
  EXPECT_EQ(world_.open(2, 3, source).last_stamp(), at(12).value);
}

TEST_F(Sync, A_repaired_replica_asks_to_be_compared_until_a_write_was_accepted) {
  Message repair = world_.request(Operation::repair, at(0), 1, 5, 1);
  Block_record const record{at(3).value, crc32c_of_zero_block, block_hole};
  repair.meta = Slice::copy_of(std::as_bytes(std::span(&record, 1)));
  EXPECT_EQ(world_.ask(*world_.clients[source], repair).header.status, Errc::ok);
  EXPECT_TRUE(world_.open(2, 2, source).unclean());
  EXPECT_EQ(world_.write(Stamp::of({2}, 1), 2, 5, 1, source), Errc::ok);
  EXPECT_FALSE(world_.open(3, 3, source).unclean());
}

TEST_F(Sync, A_source_that_stays_away_makes_it_give_up) {
  world_.nodes[source]->die(false);
  order(false);
  ASSERT_TRUE(wait_for_done(1));
  EXPECT_TRUE(mds_.sync_dones()[0].sync_done().failed());
  EXPECT_FALSE(mds_.sync_dones()[0].sync_done().reason().empty());
  world_.nodes[source]->start();
}

TEST_F(Sync, A_refused_report_waits_for_the_writer_and_begins_again) {
  mds_.refuse_sync_done = true;
  order(false);
  ASSERT_TRUE(wait_for_done(1));
  mds_.refuse_sync_done = false;
  world_.run(std::chrono::seconds(1));
  EXPECT_EQ(mds_.sync_dones().size(), 1u);
  EXPECT_EQ(world_.open(1, 2, source).status(), 0u);
  EXPECT_EQ(world_.open(1, 2, newcomer, at(13).value).status(), 0u);
  ASSERT_TRUE(wait_for_done(2));
  EXPECT_EQ(mds_.sync_dones()[1].sync_done().epoch(), 1u);
}

TEST_F(Sync, A_block_that_no_source_has_arrives_as_damaged_and_all_others_whole) {
  world_.nodes[source]->server->stop([](Errc) {});
  world_.run(std::chrono::seconds(2));
  world_.nodes[source]->die(false);
  world_.nodes[source]->disk.flip(chunk_name(Server_world::chunk),
                                  data_offset(test_chunk_size) + 183 * block_bytes + 9, 2);
  world_.nodes[source]->start();
  world_.reconnect();
  order(false);
  ASSERT_TRUE(wait_for_done(1));
  EXPECT_FALSE(mds_.sync_dones()[0].sync_done().failed());
  auto const ours = table(newcomer), theirs = table(source);
  for (std::size_t i = 0; i < ours.size(); ++i) {
    EXPECT_EQ(ours[i].stamp, theirs[i].stamp) << i;
    EXPECT_EQ((ours[i].flags & block_corrupt) != 0, i == 183) << i;
  }
  EXPECT_EQ(world_.open(2, 3, newcomer, 0, false).status(), 0u);
  auto const read = [&](std::uint32_t block) {
    return world_.ask(*world_.clients[newcomer],
                      world_.request(Operation::read, Stamp::of({2}, 0), 3, block, 1));
  };
  EXPECT_EQ(read(183).header.status, Errc::corrupt);
  EXPECT_EQ(read(184).header.status, Errc::ok);
}

// The power failed everywhere in a large write that nobody had flushed, and the servers that could
// still accept what was left of it were gone: the block was unreadable for ever (sim_cluster --seed
// 3970).
TEST_F(Sync, A_block_that_is_torn_at_the_source_can_be_accepted_at_the_newcomer) {
  accept_at_newcomer(false, tear_at_source());
}

TEST_F(Sync, A_torn_block_that_was_copied_survives_a_power_failure_as_torn) {
  accept_at_newcomer(true, tear_at_source());
}

TEST_F(Sync, A_torn_block_that_rots_is_neither_copied_nor_accepted) {
  auto const torn = tear_at_source();
  ASSERT_FALSE(torn.empty());
  world_.nodes[source]->disk.flip(chunk_name(Server_world::chunk),
                                  data_offset(test_chunk_size) + torn[0] * block_bytes + 9, 2);
  EXPECT_TRUE(pull(source, torn[0]).empty());
  order(false);
  ASSERT_TRUE(wait_for_done(1));
  EXPECT_EQ(table(newcomer)[torn[0]].flags, block_hole | block_corrupt);
  ++epoch_;
  for (std::size_t const server : {source, newcomer}) {
    EXPECT_EQ(world_.open(epoch_, 3, server, 0, false).status(), 0u);
    EXPECT_EQ(accept(server, torn[0]), Errc::corrupt);
  }
}

TEST_F(Sync, Deleted_chunks_are_reported_once_they_are_gone) {
  proto::Mds_push push;
  push.mutable_delete_chunks()->add_chunks(Server_world::chunk.value);
  push.mutable_delete_chunks()->add_chunks(99);  // never seen: gone already
  mds_.push(1025, push);
  world_.run(std::chrono::seconds(1));
  auto const deleted = mds_.all([](auto const& request) { return request.has_deleted_chunks(); });
  ASSERT_EQ(deleted.size(), 1u);
  EXPECT_EQ(deleted[0].deleted_chunks().chunks_size(), 2);
  EXPECT_EQ(world_.open(2, 2, source, 0, false).status(), static_cast<unsigned>(Errc::not_found));
  EXPECT_EQ(world_.nodes[source]->server->store().chunk_count(), 0u);
}

}  // namespace
}  // namespace pstorage::cs
