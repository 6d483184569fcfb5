// Which replicas stay, which go, and what moves: the planner's pure side.
#include "mds/planner/balance.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/mds/fakes.h"

namespace pstorage::mds {
namespace {

constexpr std::uint64_t gigabyte = 1ull << 30;
constexpr std::uint64_t chunk_bytes = 64u << 20;

class Healing_plan : public ::testing::Test {
 protected:
  Candidate& add(std::uint32_t cs, std::uint64_t host, std::uint64_t free_gigabytes = 50,
                 std::uint32_t tier = 0) {
    servers_.push_back({Cs_id{cs}, Host_id{host}, "", tier, 100 * gigabyte,
                        free_gigabytes * gigabyte, true, "active"});
    return servers_.back();
  }
  void set_state(std::uint32_t cs, std::string const& state) {
    for (auto& server : servers_) {
      if (server.cs.value != cs) continue;
      server.state = state;
      server.usable = state == "active" && !server.releasing;
    }
  }
  void release(std::uint32_t cs) {
    for (auto& server : servers_) {
      if (server.cs.value != cs) continue;
      server.releasing = true;
      server.usable = false;
    }
  }
  static Needy_chunk chunk(std::vector<std::uint32_t> const& in_sync, std::uint32_t norm = 3,
                           std::uint32_t tier = 0, std::uint64_t id = 1) {
    Needy_chunk one;
    one.chunk = Chunk_id{id};
    one.version = Version{1};
    one.norm = norm;
    one.tier = tier;
    one.chunk_bytes = chunk_bytes;
    for (auto const cs : in_sync) one.in_sync.push_back(Cs_id{cs});
    return one;
  }
  std::vector<std::uint32_t> kept(Needy_chunk const& one) {
    std::vector<std::uint32_t> ids;
    for (auto const cs : kept_replicas(one, Servers(servers_))) ids.push_back(cs.value);
    std::sort(ids.begin(), ids.end());
    return ids;
  }
  std::vector<Sync_choice> recover(std::vector<Needy_chunk> const& chunks) {
    Sync_slots slots({}, {});
    plan_recovery(chunks, Servers(servers_), slots, {}, 2, random_);
    return slots.take_choices();
  }
  std::vector<Sync_choice> tiers(Needy_chunk const& one) {
    Sync_slots slots({}, {});
    plan_tiers({one}, Servers(servers_), slots, {}, random_);
    return slots.take_choices();
  }
  std::vector<std::uint32_t> removed(Needy_chunk const& one) {
    std::vector<std::uint32_t> ids;
    for (auto const& removal : plan_removals({one}, Servers(servers_))) {
      for (auto const cs : removal.servers) ids.push_back(cs.value);
    }
    return ids;
  }

  Test_random random_;
  std::vector<Candidate> servers_;
};

TEST_F(Healing_plan, The_fullest_of_too_many_replicas_goes) {
  add(1025, 1, 50);
  add(1026, 2, 10);
  add(1027, 3, 60);
  add(1028, 4, 40);
  EXPECT_EQ(removed(chunk({1025, 1026, 1027, 1028})), std::vector<std::uint32_t>{1026});
  EXPECT_TRUE(removed(chunk({1025, 1026, 1027})).empty());
}

TEST_F(Healing_plan, Of_two_replicas_in_one_failure_domain_one_goes_first) {
  add(1025, 1, 10);
  add(1026, 2, 90);
  add(1027, 2, 80);
  add(1028, 3, 10);
  EXPECT_EQ(removed(chunk({1025, 1026, 1027, 1028})), std::vector<std::uint32_t>{1027});
}

TEST_F(Healing_plan, Nothing_is_removed_while_a_kept_one_is_silent_or_a_sync_runs) {
  for (std::uint32_t i = 0; i < 4; ++i) add(1025 + i, 1 + i);
  auto const one = chunk({1025, 1026, 1027, 1028});
  set_state(1028, "inactive");
  // The silent one is the surplus: the others suffice without it.
  EXPECT_EQ(removed(one), std::vector<std::uint32_t>{1028});
  set_state(1027, "inactive");
  EXPECT_TRUE(removed(one).empty());
  set_state(1027, "active");
  auto syncing = one;
  syncing.syncing = {Cs_id{1029}};
  EXPECT_TRUE(removed(syncing).empty());
}

TEST_F(Healing_plan, What_a_failed_sync_has_left_goes_when_the_norm_is_there) {
  for (std::uint32_t i = 0; i < 4; ++i) add(1025 + i, 1 + i);
  auto one = chunk({1025, 1026, 1027});
  one.stale = {Cs_id{1028}};
  EXPECT_EQ(removed(one), std::vector<std::uint32_t>{1028});
  one.in_sync.pop_back();
  EXPECT_TRUE(removed(one).empty());
}

TEST_F(Healing_plan, A_releasing_server_is_replaced_first_and_removed_then) {
  for (std::uint32_t i = 0; i < 4; ++i) add(1025 + i, 1 + i);
  release(1025);
  auto const one = chunk({1025, 1026, 1027});
  EXPECT_TRUE(removed(one).empty());
  auto const choices = recover({one});
  ASSERT_EQ(choices.size(), 1u);
  EXPECT_EQ(choices[0].cs.value, 1028u);
  EXPECT_EQ(removed(chunk({1025, 1026, 1027, 1028})), std::vector<std::uint32_t>{1025});
}

TEST_F(Healing_plan, The_host_of_a_releasing_server_may_take_the_replica_on_another_disk) {
  add(1025, 1);
  add(1026, 2);
  add(1027, 3);
  add(1028, 1);
  release(1025);
  auto const choices = recover({chunk({1025, 1026, 1027})});
  ASSERT_EQ(choices.size(), 1u);
  EXPECT_EQ(choices[0].cs.value, 1028u);
}

TEST_F(Healing_plan, A_failed_disk_is_emptied_like_a_released_one) {
  for (std::uint32_t i = 0; i < 4; ++i) add(1025 + i, 1 + i);
  set_state(1025, "failed");
  EXPECT_EQ(recover({chunk({1025, 1026, 1027})}).size(), 1u);
  EXPECT_EQ(removed(chunk({1025, 1026, 1027, 1028})), std::vector<std::uint32_t>{1025});
}

TEST_F(Healing_plan, Replicas_that_share_a_failure_domain_are_spread) {
  add(1025, 1);
  add(1026, 1);
  add(1027, 2);
  EXPECT_TRUE(recover({chunk({1025, 1026, 1027})}).empty());  // no third host
  EXPECT_TRUE(removed(chunk({1025, 1026, 1027})).empty());
  add(1028, 3);
  auto const choices = recover({chunk({1025, 1026, 1027})});
  ASSERT_EQ(choices.size(), 1u);
  EXPECT_EQ(choices[0].cs.value, 1028u);
}

TEST_F(Healing_plan, Pending_comes_before_blocked_before_urgent_before_degraded) {
  for (std::uint32_t i = 0; i < 4; ++i) add(1025 + i, 1 + i);
  std::vector<Needy_chunk> chunks;
  std::uint64_t id = 0;
  for (auto const need : {Need::misplaced, Need::degraded, Need::leaving, Need::urgent,
                          Need::blocked, Need::pending}) {
    chunks.push_back(chunk({1025, 1026}, 3, 0, ++id));
    chunks.back().need = need;
  }
  auto const choices = recover(chunks);
  std::vector<std::uint64_t> order;
  for (auto const& choice : choices) order.push_back(choice.chunk.value);
  EXPECT_EQ(order, (std::vector<std::uint64_t>{6, 5, 4, 2, 3, 1}));
}

TEST_F(Healing_plan, A_chunk_moves_to_its_tier_when_that_has_room) {
  add(1025, 1, 50, 0);
  add(1026, 2, 50, 0);
  add(1027, 3, 50, 1);
  auto const one = chunk({1025, 1026}, 2, 1);
  auto const choices = tiers(one);
  ASSERT_EQ(choices.size(), 1u);
  EXPECT_EQ(choices[0].cs.value, 1027u);
  EXPECT_TRUE(tiers(chunk({1025, 1026}, 2, 0)).empty());
  // It holds one already: the other follows only where there is another host.
  EXPECT_TRUE(tiers(chunk({1025, 1027}, 2, 1)).empty());
}

TEST_F(Healing_plan, A_tier_takes_back_only_with_room_to_spare) {
  add(1025, 1, 50, 0);
  add(1026, 2, 7, 1);  // above the margin of 5 %, not above the one for the way back
  EXPECT_TRUE(tiers(chunk({1025}, 1, 1)).empty());
  servers_[1].free_bytes = 12 * gigabyte;
  EXPECT_EQ(tiers(chunk({1025}, 1, 1)).size(), 1u);
}

TEST_F(Healing_plan, The_replica_in_the_wrong_tier_is_the_one_that_goes) {
  add(1025, 1, 90, 0);
  add(1026, 2, 20, 1);
  EXPECT_EQ(removed(chunk({1025, 1026}, 1, 1)), std::vector<std::uint32_t>{1025});
}

// ---------------------------------------------------------------- balance

/// Servers with chunks, moved as the planner says, until it says nothing more.
class Balance : public Healing_plan {
 protected:
  void add_chunks(std::size_t count, std::uint32_t norm) {
    for (std::size_t i = 0; i < count; ++i) {
      Placement_request const request{norm, norm, Failure_domain::host, 0, chunk_bytes, {}, {}};
      auto const placed = place(request, servers_, {}, random_);
      ASSERT_TRUE(placed.has_value());
      auto one = chunk({}, norm, 0, chunks_.size() + 1);
      one.in_sync = placed.value();
      chunks_.push_back(std::move(one));
      refresh();
    }
  }
  void refresh() {
    std::map<Cs_id, std::uint32_t> counts;
    for (auto const& one : chunks_) {
      for (auto const cs : one.in_sync) ++counts[cs];
    }
    loads_.clear();
    for (auto& server : servers_) {
      server.free_bytes = server.total_bytes - counts[server.cs] * chunk_bytes;
      loads_[server.cs].replicas = counts[server.cs];
    }
  }
  /// One pass; the number of moves.
  std::size_t pass() {
    Sync_slots slots({}, {});
    std::vector<Move> moves;
    auto const chunks_on = [&](Cs_id cs) {
      std::vector<Needy_chunk> found;
      for (auto const& one : chunks_) {
        if (std::count(one.in_sync.begin(), one.in_sync.end(), cs) != 0) found.push_back(one);
      }
      return found;
    };
    Servers const servers(servers_);
    plan_balance(0, servers, loads_, chunks_on, slots, {}, moves);
    for (auto const& choice : slots.take_choices()) {
      chunks_[choice.chunk.value - 1].in_sync.push_back(choice.cs);
    }
    refresh();
    for (auto const& removal : plan_removals(chunks_, Servers(servers_))) {
      auto& list = chunks_[removal.chunk.value - 1].in_sync;
      for (auto const cs : removal.servers) std::erase(list, cs);
    }
    refresh();
    return moves.size();
  }
  double spread() const {
    double lowest = 100;
    double highest = 0;
    for (auto const& server : servers_) {
      lowest = std::min(lowest, percent_full(server));
      highest = std::max(highest, percent_full(server));
    }
    return highest - lowest;
  }
  std::vector<Needy_chunk> chunks_;
  std::map<Cs_id, Server_load> loads_;
};

TEST_F(Balance, An_empty_server_comes_within_five_points_and_then_it_is_quiet) {
  for (std::uint32_t i = 0; i < 4; ++i) add(1025 + i, 1 + i).total_bytes = 20 * gigabyte;
  refresh();
  add_chunks(400, 3);
  add(1029, 5).total_bytes = 20 * gigabyte;
  refresh();
  EXPECT_GT(spread(), 50);
  std::size_t moved = 0;
  for (int round = 0; round < 1000; ++round) {
    auto const now = pass();
    if (now == 0) break;
    moved += now;
  }
  EXPECT_LE(spread(), 5);
  EXPECT_EQ(pass(), 0u);
  // What an empty fifth server has to get is a fifth of 1200; more would be waste.
  EXPECT_LE(moved, 260u);
  for (auto const& one : chunks_) {
    EXPECT_EQ(one.in_sync.size(), 3u);
    EXPECT_EQ(kept_replicas(one, Servers(servers_)).size(), 3u);
  }
}

TEST_F(Balance, Servers_within_the_spread_are_left_alone) {
  for (std::uint32_t i = 0; i < 3; ++i) add(1025 + i, 1 + i).total_bytes = 100 * gigabyte;
  refresh();
  add_chunks(60, 2);
  EXPECT_EQ(pass(), 0u);
}

TEST_F(Balance, Moves_under_way_count_as_done) {
  add(1025, 1, 50);
  add(1026, 2, 56);
  loads_[Cs_id{1025}].replicas = 800;
  std::vector<Move> const moves = {{Chunk_id{1}, Cs_id{1025}, Cs_id{1026}, 3 * gigabyte}};
  Servers const servers(servers_);
  auto const before = balance_entries(0, servers, loads_, {}, {});
  auto const after = balance_entries(0, servers, loads_, moves, {});
  EXPECT_NEAR(before.front().cost - before.back().cost, 6, 0.01);
  EXPECT_NEAR(after.front().cost - after.back().cost, 0, 0.01);
}

TEST_F(Balance, A_slow_disk_counts_as_a_bit_fuller) {
  add(1025, 1);
  add(1026, 2);
  add(1027, 3);
  loads_[Cs_id{1025}].latency_us = 1000;
  loads_[Cs_id{1026}].latency_us = 1000;
  loads_[Cs_id{1027}].latency_us = 90'000;
  auto const entries = balance_entries(0, Servers(servers_), loads_, {}, {});
  EXPECT_EQ(entries.front().server->cs.value, 1027u);
  EXPECT_NEAR(entries.front().cost - entries.back().cost, 1.5, 0.01);
}

TEST_F(Balance, No_move_puts_two_replicas_into_one_host) {
  for (std::uint32_t i = 0; i < 4; ++i) add(1025 + i, 1 + i).total_bytes = 20 * gigabyte;
  refresh();
  add_chunks(200, 3);
  add(1029, 1).total_bytes = 20 * gigabyte;  // a new disk of the first host
  refresh();
  for (int round = 0; round < 500 && pass() != 0; ++round) {
  }
  for (auto const& one : chunks_) EXPECT_EQ(kept_replicas(one, Servers(servers_)).size(), 3u);
  EXPECT_NEAR(percent_full(servers_[0]), percent_full(servers_[4]), 5);
}

}  // namespace
}  // namespace pstorage::mds
