#include <gtest/gtest.h>

#include <map>
#include <set>

#include "mds/planner/placement.h"
#include "mds/planner/recovery.h"
#include "mds/server/tables.h"
#include "tests/mds/fakes.h"

namespace pstorage::mds {
namespace {

constexpr std::uint64_t gigabyte = 1ull << 30;

Candidate server(std::uint32_t cs, std::uint64_t host, std::uint64_t free_gigabytes = 50,
                 std::uint32_t tier = 0, std::string const& location = "") {
  return {Cs_id{cs}, Host_id{host}, location, tier, 100 * gigabyte, free_gigabytes * gigabyte,
          true,      "active"};
}

Placement_request want(std::uint32_t norm, std::uint32_t min,
                       Failure_domain domain = Failure_domain::host, std::uint32_t tier = 0) {
  return {norm, min, domain, tier, 64u << 20, {}, {}};
}

TEST(Placement, Never_puts_two_replicas_into_one_failure_domain) {
  Test_random random(11);
  for (int round = 0; round < 2000; ++round) {
    std::vector<Candidate> servers;
    auto const count = 1 + random.below(12);
    for (std::uint32_t i = 0; i < count; ++i) {
      servers.push_back(server(1025 + i, 1 + random.below(5), random.below(100),
                               static_cast<std::uint32_t>(random.below(3)),
                               std::to_string(random.below(2)) + "." +
                                   std::to_string(random.below(2)) + "." +
                                   std::to_string(random.below(3))));
      servers.back().usable = random.below(8) != 0;
    }
    auto const domain = static_cast<Failure_domain>(random.below(5));
    auto const norm = static_cast<std::uint32_t>(1 + random.below(4));
    auto const chosen = place(want(norm, 1, domain), servers, {}, random);
    if (!chosen.has_value()) continue;
    std::set<std::string> domains;
    for (auto const cs : chosen.value()) {
      auto const& candidate = servers[cs.value - 1025];
      EXPECT_TRUE(candidate.usable);
      EXPECT_TRUE(has_room(candidate, 64u << 20, {}));
      EXPECT_TRUE(domains.insert(domain_key(domain, candidate)).second);
    }
    EXPECT_LE(chosen.value().size(), norm);
  }
}

TEST(Placement, Is_decided_by_the_random_numbers_alone) {
  std::vector<Candidate> servers;
  for (std::uint32_t i = 0; i < 9; ++i) servers.push_back(server(1025 + i, i));
  for (std::uint64_t seed = 1; seed < 20; ++seed) {
    Test_random a(seed);
    Test_random b(seed);
    EXPECT_EQ(place(want(3, 2), servers, {}, a).value(), place(want(3, 2), servers, {}, b).value());
  }
}

TEST(Placement, Balances_by_free_space) {
  Test_random random(3);
  std::vector<Candidate> const servers = {server(1025, 1, 80), server(1026, 2, 40),
                                          server(1027, 3, 20)};
  std::map<Cs_id, int> counts;
  for (int i = 0; i < 14000; ++i) ++counts[place(want(1, 1), servers, {}, random).value()[0]];
  EXPECT_NEAR(counts[Cs_id{1025}], 8000, 400);
  EXPECT_NEAR(counts[Cs_id{1026}], 4000, 300);
  EXPECT_NEAR(counts[Cs_id{1027}], 2000, 250);
}

TEST(Placement, A_full_tier_spills_to_lower_numbers_then_to_higher) {
  Test_random random;
  auto const pick = [&random](std::vector<Candidate> const& servers) {
    return place(want(1, 1, Failure_domain::host, 2), servers, {}, random).value()[0].value;
  };
  std::vector<Candidate> servers = {server(1025, 1, 50, 0), server(1026, 2, 50, 1),
                                    server(1027, 3, 50, 2), server(1028, 4, 50, 3)};
  EXPECT_EQ(pick(servers), 1027u);
  servers[2].free_bytes = 0;
  EXPECT_EQ(pick(servers), 1026u);
  servers[1].usable = false;
  EXPECT_EQ(pick(servers), 1025u);
  servers[0].free_bytes = gigabyte;  // below the margin of 5 %
  EXPECT_EQ(pick(servers), 1028u);
}

TEST(Placement, Says_what_is_missing) {
  Test_random random;
  std::vector<Candidate> servers = {server(1025, 1), server(1026, 1), server(1027, 2, 0)};
  auto const refused = place(want(3, 2), servers, {}, random);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().text,
            "a new chunk needs 2 active chunk servers on different hosts, only 1 can be used "
            "(2 active with room, 1 full, 0 not active): free space or add chunk servers");
}

TEST(Placement, Respects_what_is_there_already) {
  Test_random random;
  std::vector<Candidate> const servers = {server(1025, 1), server(1026, 1), server(1027, 2),
                                          server(1028, 3)};
  auto request = want(1, 1);
  request.present = {Cs_id{1025}};
  request.excluded = {Cs_id{1027}};
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(place(request, servers, {}, random).value()[0].value, 1028u);
  }
}

TEST(Placement, Full_servers_mean_no_space_missing_ones_no_placement) {
  Test_random random;
  std::vector<Candidate> servers = {server(1025, 1), server(1026, 2, 0), server(1027, 3)};
  servers[2].usable = false;
  EXPECT_EQ(errc_of(place(want(3, 2), servers, {}, random).error().code), Errc::no_space);
  servers[1].usable = false;
  EXPECT_EQ(errc_of(place(want(3, 2), servers, {}, random).error().code), Errc::no_placement);
}

class Recovery : public ::testing::Test {
 protected:
  Needy_chunk chunk(std::uint64_t id, std::vector<std::uint32_t> const& in_sync,
                    std::vector<std::uint32_t> const& stale) {
    Needy_chunk one{Chunk_id{id}, Version{1}, 3, Failure_domain::host, 0, 64u << 20, {}, {},
                    {},           {},         {}};
    for (auto const cs : in_sync) one.in_sync.push_back(Cs_id{cs});
    for (auto const cs : stale) one.stale.push_back(Cs_id{cs});
    return one;
  }
  std::vector<Sync_choice> plan(std::vector<Needy_chunk> const& chunks,
                                std::map<Cs_id, std::uint32_t> busy = {}) {
    Sync_slots slots(std::move(busy), {});
    plan_recovery(chunks, Servers(servers_), slots, {}, 2, random_);
    return slots.take_choices();
  }
  void set_state(std::size_t index, std::string const& state) {
    servers_[index].state = state;
    servers_[index].usable = state == "active";
  }
  Test_random random_;
  std::vector<Candidate> servers_ = {server(1025, 1), server(1026, 2), server(1027, 3),
                                     server(1028, 4)};
};

TEST_F(Recovery, A_returned_server_is_the_first_choice) {
  auto const choices = plan({chunk(1, {1025, 1026}, {1027})});
  ASSERT_EQ(choices.size(), 1u);
  EXPECT_EQ(choices[0].cs.value, 1027u);
}

TEST_F(Recovery, An_inactive_server_is_waited_for_an_offline_one_replaced) {
  set_state(2, "inactive");
  EXPECT_TRUE(plan({chunk(1, {1025, 1026}, {1027})}).empty());
  set_state(2, "offline");
  auto const choices = plan({chunk(1, {1025, 1026}, {1027})});
  ASSERT_EQ(choices.size(), 1u);
  EXPECT_EQ(choices[0].cs.value, 1028u);
}

TEST_F(Recovery, Too_many_offline_hosts_stop_replication_but_not_the_return) {
  for (std::uint32_t i = 0; i < 3; ++i) servers_.push_back(server(1029 + i, 5 + i));
  for (std::size_t i = 4; i < 7; ++i) set_state(i, "offline");
  EXPECT_TRUE(plan({chunk(1, {1025, 1026}, {1030})}).empty());
  EXPECT_EQ(plan({chunk(1, {1025, 1026}, {1027})}).size(), 1u);
}

TEST_F(Recovery, Without_an_active_source_nothing_is_begun) {
  set_state(0, "inactive");
  EXPECT_TRUE(plan({chunk(1, {1025}, {1027})}).empty());
}

TEST_F(Recovery, The_number_of_syncs_is_bounded_by_server_and_in_total) {
  std::vector<Needy_chunk> chunks;
  for (std::uint64_t id = 1; id <= 100; ++id) chunks.push_back(chunk(id, {1025, 1026}, {1027}));
  EXPECT_EQ(plan(chunks).size(), 8u);
  EXPECT_EQ(plan(chunks, {{Cs_id{1027}, 6}}).size(), 2u);
  EXPECT_TRUE(plan(chunks, {{Cs_id{1025}, 64}}).empty());
}

TEST_F(Recovery, A_server_that_must_still_delete_an_old_copy_is_not_chosen) {
  set_state(2, "offline");
  auto one = chunk(1, {1025, 1026}, {1027});
  one.garbage = {Cs_id{1028}};
  EXPECT_TRUE(plan({one}).empty());
}

TEST_F(Recovery, A_server_where_the_sync_has_just_failed_rests) {
  auto one = chunk(1, {1025, 1026}, {1027});
  one.resting = {Cs_id{1027}};
  EXPECT_TRUE(plan({one}).empty());
  set_state(2, "offline");
  one.resting = {Cs_id{1028}};
  EXPECT_TRUE(plan({one}).empty());
}

TEST(Setbacks, Pauses_double_and_are_forgotten_when_long_over_or_the_server_returns) {
  Leader_tables tables;
  Chunk_id const chunk{7};
  Cs_id const cs{1025};
  Time_point now{};
  tables.note_failed_sync(chunk, cs, now);
  auto const first = tables.setbacks.begin()->second.pause;
  EXPECT_EQ(tables.resting(chunk, now).size(), 1u);
  EXPECT_TRUE(tables.resting(Chunk_id{8}, now).empty());
  now = now + first;
  EXPECT_TRUE(tables.resting(chunk, now).empty());
  tables.note_failed_sync(chunk, cs, now);
  EXPECT_EQ(tables.setbacks.begin()->second.pause, 2 * first);
  tables.forget_setbacks(now);
  EXPECT_EQ(tables.setbacks.size(), 1u);
  tables.forget_setbacks(now + std::chrono::minutes(1));
  EXPECT_TRUE(tables.setbacks.empty());
  tables.note_failed_sync(chunk, cs, now);
  tables.forget_setbacks_of(cs);
  EXPECT_TRUE(tables.resting(chunk, now).empty());
}

}  // namespace
}  // namespace pstorage::mds
