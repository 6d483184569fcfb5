#include "tests/cs/server_world.h"

namespace pstorage::cs {
namespace {

constexpr Epoch one{1}, two{2};
constexpr Stamp at(Epoch epoch, std::uint32_t sequence) { return Stamp::of(epoch, sequence); }

TEST(Chunk_server, A_chunk_is_served_only_after_it_was_opened) {
  Server_world world;
  EXPECT_EQ(world.write(at(one, 1), 1, 0, 1), Errc::not_open);
  EXPECT_EQ(world.open(1, 1, 0, 0, false).status(), static_cast<unsigned>(Errc::not_found));
  auto const opened = world.open(1, 1);
  EXPECT_EQ(opened.status(), 0u);
  EXPECT_EQ(opened.version(), 1u);
  EXPECT_FALSE(opened.unclean());
  EXPECT_EQ(world.write(at(one, 1), 1, 0, 1), Errc::ok);
  EXPECT_TRUE(world.holds(one, 1, 0, at(one, 1)));
}

TEST(Chunk_server, A_seal_stops_the_old_writer_in_every_operation) {
  Server_world world;
  world.open(1, 1);
  EXPECT_EQ(world.write(at(one, 1), 1, 0, 1), Errc::ok);
  EXPECT_EQ(world.seal(2), Errc::ok);
  EXPECT_EQ(world.write(at(one, 2), 1, 0, 1), Errc::stale_epoch);
  EXPECT_EQ(world.read(one, 1, 0, 1).header.status, Errc::stale_epoch);
  EXPECT_EQ(world.flush(one), Errc::stale_epoch);
  EXPECT_EQ(world.open(1, 1).status(), static_cast<unsigned>(Errc::stale_epoch));
  EXPECT_EQ(world.seal(1), Errc::stale_epoch);
  for (Operation const operation : {Operation::zero, Operation::repair, Operation::table}) {
    EXPECT_EQ(
        world.ask(*world.clients[0], world.request(operation, at(one, 0), 1, 0, 0)).header.status,
        operation == Operation::repair ? Errc::stale_epoch : Errc::stale_epoch);
  }
}

TEST(Chunk_server, A_seal_survives_power_loss) {
  Server_world world;
  world.open(1, 1);
  EXPECT_EQ(world.seal(2), Errc::ok);
  world.nodes[0]->die(true);
  world.nodes[0]->start();
  world.reconnect();
  EXPECT_EQ(world.open(1, 1).status(), static_cast<unsigned>(Errc::stale_epoch));
  EXPECT_EQ(world.open(2, 1).status(), 0u);
}

TEST(Chunk_server, Opening_with_news_seals_durably_before_the_answer) {
  Server_world world;
  EXPECT_EQ(world.open(5, 1).status(), 0u);
  world.nodes[0]->die(true);
  world.nodes[0]->start();
  world.reconnect();
  EXPECT_EQ(world.seal(4), Errc::stale_epoch);
}

TEST(Chunk_server, A_wrong_payload_checksum_changes_nothing) {
  Server_world world;
  world.open(1, 1);
  EXPECT_EQ(world.write(at(one, 1), 1, 0, 1), Errc::ok);
  Message message = world.request(Operation::write, at(one, 2), 1, 0, 1);
  message.data.data()[17] ^= std::byte{1};
  EXPECT_EQ(world.ask(*world.clients[0], std::move(message)).header.status, Errc::corrupt);
  EXPECT_TRUE(world.holds(one, 1, 0, at(one, 1)));
}

TEST(Chunk_server, A_duplicate_is_acknowledged_and_not_applied) {
  Server_world world;
  world.open(1, 1);
  EXPECT_EQ(world.write(at(one, 1), 1, 0, 1), Errc::ok);
  EXPECT_EQ(world.write(at(one, 2), 1, 0, 1), Errc::ok);
  EXPECT_EQ(world.write(at(one, 1), 1, 0, 1), Errc::ok);
  EXPECT_TRUE(world.holds(one, 1, 0, at(one, 2)));
}

TEST(Chunk_server, A_large_duplicate_waits_for_the_first_one) {
  Server_world world;
  world.open(1, 1);
  auto const first = world.clients[0]->send(world.request(Operation::write, at(one, 1), 1, 0, 40));
  auto const again = world.clients[0]->send(world.request(Operation::write, at(one, 1), 1, 0, 40));
  world.queue.run_until(world.queue.now() + std::chrono::microseconds(180));
  EXPECT_TRUE(world.clients[0]->answers.empty());
  world.run(std::chrono::milliseconds(50));
  EXPECT_EQ(world.clients[0]->answers[first].header.status, Errc::ok);
  EXPECT_EQ(world.clients[0]->answers[again].header.status, Errc::ok);
}

TEST(Chunk_server, Answers_carry_the_incarnation_and_a_restart_changes_it) {
  Server_world world;
  world.open(1, 1);
  auto const before = world.read(one, 1, 0, 1).header.incarnation;
  EXPECT_NE(before.value, 0u);
  world.nodes[0]->die(false);
  world.nodes[0]->start();
  world.reconnect();
  EXPECT_EQ(world.read(one, 1, 0, 1).header.status, Errc::not_open);
  EXPECT_NE(world.read(one, 1, 0, 1).header.incarnation, before);
}

TEST(Chunk_server, After_a_kill_the_last_stamp_is_known_and_the_chunk_is_unclean) {
  Server_world world;
  world.open(1, 1);
  EXPECT_EQ(world.write(at(one, 9), 1, 0, 1), Errc::ok);
  world.nodes[0]->die(false);
  world.nodes[0]->start();
  world.reconnect();
  auto const opened = world.open(2, 2, 0, 0, false);
  EXPECT_EQ(opened.status(), 0u);
  EXPECT_EQ(opened.last_stamp(), at(one, 9).value);
  EXPECT_TRUE(opened.unclean());
  EXPECT_TRUE(world.holds(two, 2, 0, at(one, 9)));
}

TEST(Chunk_server, A_lower_version_is_stale_also_after_power_loss) {
  Server_world world;
  world.open(1, 4);
  EXPECT_EQ(world.write(at(one, 1), 4, 0, 1), Errc::ok);
  EXPECT_EQ(world.flush(one), Errc::ok);
  world.nodes[0]->die(true);
  world.nodes[0]->start();
  world.reconnect();
  auto const opened = world.open(1, 3);
  EXPECT_EQ(opened.status(), static_cast<unsigned>(Errc::stale_version));
  EXPECT_EQ(opened.version(), 4u);
}

TEST(Chunk_server, Zeroed_blocks_read_as_zeros_and_the_table_says_hole) {
  Server_world world;
  world.open(1, 1);
  EXPECT_EQ(world.write(at(one, 1), 1, 0, 4), Errc::ok);
  EXPECT_EQ(world.ask(*world.clients[0], world.request(Operation::zero, at(one, 2), 1, 1, 2))
                .header.status,
            Errc::ok);
  Message const read = world.read(one, 1, 1, 1);
  EXPECT_EQ(load_le<std::uint32_t>(read.meta.data()), crc32c_of_zero_block);
  Message const table =
      world.ask(*world.clients[0], world.request(Operation::table, at(one, 0), 1, 0, 8));
  ASSERT_EQ(table.meta.size(), 8 * sizeof(Block_record));
  auto const record = load_le<Block_record>(table.meta.data() + 2 * sizeof(Block_record));
  EXPECT_EQ(record.flags, std::uint32_t{block_hole});
  EXPECT_EQ(record.stamp, at(one, 2).value);
  auto const empty = load_le<Block_record>(table.meta.data() + 7 * sizeof(Block_record));
  EXPECT_EQ(empty.flags, std::uint32_t{block_hole});
  EXPECT_EQ(empty.stamp, 0u);
}

TEST(Chunk_server, A_repair_writes_also_lower_stamps) {
  Server_world world;
  world.open(1, 1);
  EXPECT_EQ(world.write(at(one, 9), 1, 0, 2), Errc::ok);
  Message repair = world.request(Operation::repair, at(one, 0), 1, 0, 2);
  Slice const block = test_block(at(one, 3).value, 1);
  Block_record const records[2] = {{0, crc32c_of_zero_block, block_hole},
                                   {at(one, 3).value, crc32c(block.bytes()), 0}};
  repair.meta = Slice::copy_of(std::as_bytes(std::span(records)));
  repair.data = block;
  EXPECT_EQ(world.ask(*world.clients[0], repair).header.status, Errc::ok);
  EXPECT_TRUE(world.holds(one, 1, 1, at(one, 3)));
  EXPECT_EQ(world.open(2, 2).last_stamp(), at(one, 9).value);
  repair.header.stamp = at(two, 0);
  repair.header.version = {2};
  repair.data = test_block(4, 1);
  EXPECT_EQ(world.ask(*world.clients[0], repair).header.status, Errc::corrupt);
}

TEST(Chunk_server, Malformed_requests_are_refused) {
  Server_world world;
  world.open(1, 1);
  Message write = world.request(Operation::write, at(one, 1), 1, 0, 2);
  write.header.length = block_bytes;
  EXPECT_EQ(world.ask(*world.clients[0], write).header.status, Errc::bad_request);
  write = world.request(Operation::write, at(one, 1), 1, 255, 2);
  EXPECT_EQ(world.ask(*world.clients[0], write).header.status, Errc::bad_request);
  write = world.request(Operation::write, at(one, 1), 1, 0, 1);
  write.meta = {};
  EXPECT_EQ(world.ask(*world.clients[0], write).header.status, Errc::bad_request);
  Message read = world.request(Operation::read, at(one, 0), 1, 0, 0);
  EXPECT_EQ(world.ask(*world.clients[0], read).header.status, Errc::bad_request);
  Message control;
  control.meta = Slice::copy_of(as_bytes("\xff\xff\xff"));
  EXPECT_EQ(world.ask(*world.clients[0], control).header.status, Errc::bad_request);
}

TEST(Chunk_server, Roles_may_only_ask_what_is_theirs) {
  Server_world world;
  world.open(1, 1);
  EXPECT_EQ(world.ask(*world.peers[0], world.request(Operation::write, at(one, 1), 1, 0, 1))
                .header.status,
            Errc::refused);
  EXPECT_EQ(world.ask(*world.clients[0], world.request(Operation::pull, at(one, 0), 1, 0, 1))
                .header.status,
            Errc::refused);
  EXPECT_EQ(
      world.ask(*world.peers[0], world.request(Operation::pull, at(one, 0), 0, 0, 1)).header.status,
      Errc::ok);
}

TEST(Chunk_server, When_the_ring_is_full_writes_wait_and_never_fail) {
  Server_world world(1, 1u << 20);
  world.open(1, 1);
  std::vector<std::uint64_t> ids;
  for (std::uint32_t i = 1; i <= 600; ++i) {
    ids.push_back(world.clients[0]->send(
        world.request(Operation::write, at(one, i), 1, i % 200, 1 + i % 30)));
  }
  world.run(std::chrono::seconds(5));
  for (auto const id : ids) {
    ASSERT_EQ(world.clients[0]->answers[id].header.status, Errc::ok) << id;
  }
  EXPECT_TRUE(world.holds(one, 1, 0, at(one, 600)));
}

TEST(Chunk_server, A_client_that_does_not_take_its_answers_waits) {
  Server_world world;
  world.open(1, 1);
  world.nodes[0]->network->queued = 100u << 20;
  auto const id = world.clients[0]->send(world.request(Operation::read, at(one, 0), 1, 0, 8));
  world.run(std::chrono::milliseconds(100));
  EXPECT_TRUE(world.clients[0]->answers.empty());
  world.nodes[0]->network->queued = 0;
  world.run(std::chrono::milliseconds(100));
  EXPECT_EQ(world.clients[0]->answers[id].header.status, Errc::ok);
}

TEST(Chunk_server, A_failing_disk_answers_read_only_and_reads_go_on) {
  Server_world world;
  world.open(1, 1);
  EXPECT_EQ(world.write(at(one, 1), 1, 0, 1), Errc::ok);
  world.nodes[0]->disk.set_fault(
      [](sim::Disk_call call, std::string const& name) -> std::optional<std::error_code> {
        if (call != sim::Disk_call::write || name != "journal") return std::nullopt;
        return std::error_code(EIO, std::system_category());
      });
  EXPECT_EQ(world.write(at(one, 2), 1, 1, 1), Errc::read_only);
  EXPECT_EQ(world.write(at(one, 3), 1, 1, 40), Errc::read_only);
  EXPECT_TRUE(world.holds(one, 1, 0, at(one, 1)));
  EXPECT_EQ(world.nodes[0]->log.errors.size(), 1u);
  EXPECT_EQ(world.flush(one), Errc::io_error);
}

proto::Cs_request accept_torn(std::uint32_t epoch, std::uint32_t block, Stamp stamp) {
  proto::Cs_request request;
  auto& torn = *request.mutable_accept_torn();
  torn.set_chunk(Server_world::chunk.value);
  torn.set_file(7);
  torn.set_epoch(epoch);
  torn.set_version(1);
  torn.add_blocks(block);
  torn.set_stamp(stamp.value);
  return request;
}

TEST(Chunk_server, A_rotten_block_is_never_accepted_as_it_is) {
  Server_world world;
  world.open(1, 1);
  EXPECT_EQ(world.write(at(one, 1), 1, 5, 1), Errc::ok);
  world.nodes[0]->server->stop([](Errc) {});
  world.run(std::chrono::seconds(2));
  world.nodes[0]->die(false);
  world.nodes[0]->disk.flip(chunk_name(Server_world::chunk),
                            data_offset(test_chunk_size) + 5 * block_bytes + 9, 2);
  world.nodes[0]->start();
  world.reconnect();
  world.open(2, 1);
  EXPECT_EQ(world.read(two, 1, 5, 1).header.status, Errc::corrupt);
  EXPECT_EQ(world.control(accept_torn(2, 5, at(one, 1))).status(),
            static_cast<unsigned>(Errc::corrupt));
  EXPECT_EQ(world.read(two, 1, 5, 1).header.status, Errc::corrupt);
  EXPECT_EQ(world.control(accept_torn(2, 256, at(one, 1))).status(),
            static_cast<unsigned>(Errc::bad_request));
}

TEST(Chunk_server, Blocks_torn_by_a_power_failure_can_be_accepted_as_they_are) {
  Server_world world;
  std::uint32_t accepted = 0;
  for (std::uint32_t epoch = 1; epoch < 60 && accepted == 0; ++epoch) {
    world.open(epoch, 1);
    EXPECT_EQ(world.write(Stamp::of({epoch}, 1), 1, 0, 40), Errc::ok);
    EXPECT_EQ(world.flush({epoch}), Errc::ok);
    EXPECT_EQ(world.write(Stamp::of({epoch}, 2), 1, 0, 40), Errc::ok);
    world.nodes[0]->die(true);
    world.nodes[0]->start();
    world.reconnect();
    world.open(++epoch, 1);
    for (std::uint32_t block = 0; block < 40; ++block) {
      if (world.read({epoch}, 1, block, 1).header.status != Errc::corrupt) continue;
      Stamp const stamp = Stamp::of({epoch - 1}, 2);
      EXPECT_EQ(world.control(accept_torn(epoch, block, stamp)).status(), 0u);
      Message const read = world.read({epoch}, 1, block, 1);
      EXPECT_EQ(read.header.status, Errc::ok);
      EXPECT_EQ(load_le<std::uint32_t>(read.meta.data()), crc32c(read.data.bytes()));
      ++accepted;
    }
  }
  EXPECT_GT(accepted, 0u) << "nothing was ever torn";
}

}  // namespace
}  // namespace pstorage::cs
