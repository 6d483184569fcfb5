// Scrub, repair of single blocks, inventories, and the end of a server that was removed.
#include "cs/layout.h"
#include "cs/scrubber.h"
#include "tests/cs/fake_mds.h"
#include "tests/cs/server_world.h"

namespace pstorage::cs {
namespace {

constexpr Epoch one{1};
constexpr Stamp at(std::uint32_t sequence) { return Stamp::of(one, sequence); }
constexpr std::size_t good = 0, rotten = 1;
constexpr std::uint32_t blocks_written = 40;

TEST(Scrub_pacer, A_busy_server_keeps_the_period_an_idle_one_is_faster) {
  constexpr std::uint64_t bytes = 1ull << 40;
  constexpr Duration period = std::chrono::hours(24);
  constexpr Duration tick = std::chrono::milliseconds(10);
  for (bool const is_busy : {true, false}) {
    Scrub_pacer pacer;
    pacer.set(period, bytes);
    std::uint64_t read = 0;
    for (int i = 0; i < 60'000; ++i) {  // ten minutes
      pacer.advance(tick, is_busy);
      while (pacer.may_read(256 << 10)) {
        pacer.took(256 << 10);
        read += 256 << 10;
      }
    }
    auto const share = static_cast<double>(read) / static_cast<double>(bytes / 144);
    EXPECT_NEAR(share, is_busy ? 1.2 : 4, 0.05);
  }
}

TEST(Scrub_pacer, Without_a_period_nothing_is_read) {
  Scrub_pacer pacer;
  pacer.set(Duration{0}, 1 << 30);
  pacer.advance(std::chrono::hours(1), false);
  EXPECT_FALSE(pacer.may_read(256 << 10));
}

class Upkeep : public testing::Test {
 protected:
  Upkeep() : world_(2), mds_(world_.hub) {
    auto& chunk = *mds_.map.add_chunks();
    chunk.set_chunk(Server_world::chunk.value);
    chunk.set_version(1);
    for (std::uint32_t const cs : {1025u, 1026u}) {
      chunk.add_replicas()->set_cs(cs);
      auto& server = *mds_.map.add_servers();
      server.set_cs(cs);
      server.set_host_id(cs);
      server.add_addresses(world_.nodes[cs - 1025]->address().text());
    }
  }
  void serve() {
    for (auto& node : world_.nodes) {
      if (node->server) node->die(false);
      node->options.mds_servers = {Fake_mds::address()};
      node->start();
      node->server->serve({node->address()});
    }
    world_.reconnect();
    world_.run(std::chrono::milliseconds(200));
  }
  void fill() {
    for (std::size_t server : {good, rotten}) {
      ASSERT_EQ(world_.open(1, 1, server).status(), 0u);
      for (std::uint32_t i = 0; i < blocks_written; ++i) {
        ASSERT_EQ(world_.write(at(i + 1), 1, i, 1, server), Errc::ok);
      }
      ASSERT_EQ(world_.flush(one, server), Errc::ok);
    }
    world_.run(std::chrono::seconds(10));  // everything is applied
  }
  /// Inverts a bit of `block` in the chunk file of `server`.
  void rot(std::uint32_t block, std::size_t server = rotten) {
    auto& disk = world_.nodes[server]->disk;
    auto const folders = disk.list("chunks");
    ASSERT_TRUE(folders.has_value());
    for (auto const& folder : folders.value()) {
      auto const files = disk.list("chunks/" + folder);
      ASSERT_TRUE(files.has_value());
      for (auto const& file : files.value()) {
        disk.flip("chunks/" + folder + "/" + file,
                  data_offset(test_chunk_size) + std::uint64_t{block} * block_bytes + 17, 4);
      }
    }
  }
  proto::Checked_chunk check(bool repairs, std::size_t server = rotten) {
    proto::Cs_request request;
    request.mutable_check_chunk()->set_chunk(Server_world::chunk.value);
    request.mutable_check_chunk()->set_repair(repairs);
    auto const reply = world_.control(request, server);
    EXPECT_EQ(reply.status(), 0u);
    return reply.checked();
  }
  bool holds_all(std::size_t server) {
    for (std::uint32_t i = 0; i < blocks_written; ++i) {
      if (!world_.holds(one, 1, i, at(i + 1), server)) return false;
    }
    return true;
  }

  Server_world world_;
  Fake_mds mds_;
};

TEST_F(Upkeep, The_scrub_finds_rot_and_repairs_it_from_the_other_replica) {
  mds_.scrub_period_s = 20;
  serve();
  fill();
  rot(3);
  rot(4);
  rot(30);
  EXPECT_FALSE(holds_all(rotten));
  world_.run(std::chrono::seconds(30));
  EXPECT_TRUE(holds_all(rotten));
  EXPECT_EQ(check(false).bad(), 0u);
  auto const reports = mds_.all([](auto const& request) { return request.has_report_damage(); });
  ASSERT_FALSE(reports.empty());
  EXPECT_EQ(reports.front().report_damage().blocks(), 3u);
  auto const beats = mds_.all([](auto const& request) {
    return request.has_cs_heartbeat() && request.cs_heartbeat().cs() == 1026;
  });
  EXPECT_EQ(beats.back().cs_heartbeat().scrub_errors(), 3u);
  EXPECT_EQ(beats.back().cs_heartbeat().scrub_repaired(), 3u);
  EXPECT_GT(beats.back().cs_heartbeat().scrubbed_bytes(), blocks_written * block_bytes);
}

TEST_F(Upkeep, A_period_of_zero_never_reads) {
  serve();
  fill();
  rot(3);
  world_.run(std::chrono::minutes(2));
  EXPECT_TRUE(mds_.all([](auto const& request) { return request.has_report_damage(); }).empty());
}

TEST_F(Upkeep, Check_counts_and_repairs_on_demand) {
  serve();
  fill();
  rot(7);
  EXPECT_EQ(check(false).bad(), 1u);
  EXPECT_FALSE(holds_all(rotten));
  EXPECT_EQ(check(true).bad(), 1u);
  EXPECT_TRUE(holds_all(rotten));
  auto const a = check(false, good);
  auto const b = check(false, rotten);
  EXPECT_EQ(b.bad(), 0u);
  EXPECT_EQ(a.table_crc(), b.table_crc());
  EXPECT_EQ(a.blocks(), blocks_written);
}

TEST_F(Upkeep, A_newer_write_is_never_undone_by_a_repair) {
  serve();
  fill();
  rot(5);
  // Only here, as if the other had not got it yet.
  ASSERT_EQ(world_.write(at(100), 1, 5, 1, rotten), Errc::ok);
  check(true);
  EXPECT_TRUE(world_.holds(one, 1, 5, at(100), rotten));
}

TEST_F(Upkeep, Where_no_replica_is_good_nothing_is_made_up) {
  serve();
  fill();
  rot(9, good);
  rot(9, rotten);
  EXPECT_EQ(check(true).bad(), 1u);
  EXPECT_EQ(check(false).bad(), 1u);
  EXPECT_EQ(world_.read(one, 1, 9, 1, rotten).header.status, Errc::corrupt);
}

TEST_F(Upkeep, Replicas_with_different_content_are_told_apart) {
  serve();
  fill();
  EXPECT_EQ(check(false, good).table_crc(), check(false, rotten).table_crc());
  ASSERT_EQ(world_.write(at(100), 1, 5, 1, rotten), Errc::ok);
  EXPECT_NE(check(false, good).table_crc(), check(false, rotten).table_crc());
}

TEST_F(Upkeep, A_server_tells_at_its_start_what_it_has) {
  serve();
  fill();
  mds_.requests.clear();
  serve();
  auto const told = mds_.all([](auto const& request) { return request.has_inventory(); });
  ASSERT_EQ(told.size(), 2u);
  ASSERT_EQ(told[0].inventory().chunks_size(), 1);
  EXPECT_EQ(told[0].inventory().chunks(0), Server_world::chunk.value);
}

TEST_F(Upkeep, A_removed_server_is_told_once_and_asks_no_more) {
  std::string said;
  world_.nodes[0]->options.on_dropped = [&said](Failure const& why) { said = why.text; };
  mds_.is_dropped = true;
  serve();
  EXPECT_EQ(said, "CS#1025 has been removed from the cluster");
  auto const before = mds_.all([](auto const& request) { return request.has_register_cs(); });
  world_.run(std::chrono::seconds(30));
  auto const after = mds_.all([](auto const& request) { return request.has_register_cs(); });
  EXPECT_EQ(before.size(), after.size());
}

TEST_F(Upkeep, A_server_without_session_and_connection_registers_again) {
  mds_.forgets_sessions = true;
  serve();
  mds_.close(1025);
  mds_.forgets_sessions = false;
  mds_.requests.clear();
  world_.run(std::chrono::seconds(5));
  EXPECT_FALSE(mds_.all([](auto const& request) { return request.has_cs_heartbeat(); }).empty());
}

}  // namespace
}  // namespace pstorage::cs
