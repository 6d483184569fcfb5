// A metadata server that follows, leads, and ceases to lead: over a log that the test plays.
#include <gtest/gtest.h>

#include "tests/mds/server_fixture.h"

namespace pstorage::mds {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// Commits when the test says so.
class Played_log final : public Replicated_log {
 public:
  Outcome<void> start(std::uint64_t applied, Log_listener& its_listener) override {
    listener = &its_listener;
    last = applied;
    return success();
  }
  Outcome<std::uint64_t> propose(std::string entry) override {
    if (!leads) return failure(Errc::not_leader, "not the leader");
    proposed.push_back(std::move(entry));
    return last + proposed.size();
  }
  void flush() override {}
  void tick() override {}
  void read_barrier(Barrier_done done) override {
    if (holds_reads) {
      barriers.push_back(std::move(done));
    } else {
      done(last);
    }
  }
  void cut(std::uint64_t) override {}
  bool is_leader() const override { return leads; }
  std::string leader_address() const override { return leader; }
  std::uint64_t term() const override { return 3; }
  std::uint64_t committed() const override { return last; }
  std::uint64_t commits() const override { return 0; }
  bool is_committing() const override { return false; }
  std::uint64_t own_id() const override { return 7; }
  std::vector<Log_member> members() const override { return all; }
  Outcome<void> add_member(std::uint64_t id, std::string const& address) override {
    Log_member member;
    member.id = id;
    member.address = address;
    member.is_active = true;
    all.push_back(member);
    return success();
  }
  Outcome<void> remove_member(std::uint64_t id) override {
    std::erase_if(all, [id](Log_member const& member) { return member.id == id; });
    return success();
  }
  void hand_over() override { ++handed_over; }

  void lead(bool now_leads) {
    leads = now_leads;
    listener->on_leadership(leads);
  }
  /// Commits everything that was proposed.
  void commit() {
    std::vector<Committed_entry> entries;
    for (auto& entry : std::exchange(proposed, {})) entries.push_back({++last, std::move(entry)});
    if (!entries.empty()) listener->on_committed(std::move(entries));
  }
  /// The proposals of this member are lost; another leader's entries take their place.
  void replace(std::vector<std::string> const& others) {
    proposed.clear();
    std::vector<Committed_entry> entries;
    for (auto const& entry : others) entries.push_back({++last, entry});
    listener->on_committed(std::move(entries));
  }

  Log_listener* listener = nullptr;
  bool leads = false;
  bool holds_reads = false;
  int handed_over = 0;
  std::string leader;
  std::uint64_t last = 0;
  std::vector<std::string> proposed;
  std::vector<Barrier_done> barriers;
  std::vector<Log_member> all;
};

class Leadership : public ::testing::Test {
 protected:
  void SetUp() override {
    Log_member own;
    own.id = 7;
    own.address = "10.0.0.1:2510";
    own.is_voter = own.is_active = own.is_leader = true;
    entries_.all.push_back(own);
    Metadata_server_options options;
    options.cluster = "stor1";
    options.cluster_uuid = "uuid-1";
    options.address = own.address;
    server_ = std::make_unique<Metadata_server>(queue_, network_, disk_, random_, log_, entries_,
                                                options);
    ASSERT_TRUE(server_->start().has_value());
  }
  void lead() {
    entries_.lead(true);
    settle();
  }
  /// Time for the watchers; everything they propose is committed.
  void settle(Duration time = seconds(2)) {
    auto const end = queue_.now() + time;
    while (queue_.now() < end) {
      queue_.run_until(queue_.now() + milliseconds(100));
      server_->on_tick();
      entries_.commit();
    }
  }
  Connection_id connect(Role role) {
    Connection_id const connection{++connections_};
    Peer_info peer;
    peer.role = role;
    server_->on_connected(connection, peer);
    return connection;
  }
  std::uint64_t post(Connection_id connection, proto::Mds_request const& request) {
    Message message;
    message.header.request_id = ++requests_;
    message.meta = Slice::copy_of(as_bytes(request.SerializeAsString()));
    server_->on_message(connection, message);
    server_->on_turn_end();
    return requests_;
  }
  /// The answer to `id`, if there is one.
  std::optional<proto::Mds_reply> answer(Connection_id connection, std::uint64_t id) {
    for (auto const& message : network_.sent[connection]) {
      if (message.header.request_id != id) continue;
      proto::Mds_reply reply;
      EXPECT_TRUE(reply.ParseFromString(std::string(as_text(message.meta.bytes()))));
      return reply;
    }
    return std::nullopt;
  }
  static Errc status(std::optional<proto::Mds_reply> const& reply) {
    return reply ? static_cast<Errc>(reply->status()) : Errc::timed_out;
  }
  proto::Mds_reply ask(Connection_id connection, proto::Mds_request const& request) {
    auto const id = post(connection, request);
    entries_.commit();
    auto reply = answer(connection, id);
    EXPECT_TRUE(reply.has_value());
    return reply.value_or(proto::Mds_reply());
  }
  static proto::Mds_request open(std::uint64_t session) {
    proto::Mds_request request;
    request.set_session(session);
    request.set_sequence(1);
    request.mutable_open_session()->set_name("tool");
    return request;
  }
  static proto::Mds_request create(std::string const& path, std::uint64_t sequence) {
    proto::Mds_request request;
    request.set_session(1);
    request.set_sequence(sequence);
    request.mutable_create()->set_path(path);
    request.mutable_create()->set_size(1u << 20);
    return request;
  }
  static proto::Mds_request lookup(std::string const& path) {
    proto::Mds_request request;
    request.mutable_lookup()->set_path(path);
    return request;
  }
  static proto::Mds_request join(std::uint64_t member, std::string const& address,
                                 std::uint64_t sequence) {
    proto::Mds_request request;
    request.set_session(1);
    request.set_sequence(sequence);
    request.mutable_create_mds()->set_member(member);
    request.mutable_create_mds()->set_address(address);
    request.mutable_create_mds()->set_host_id(member);
    return request;
  }
  static proto::Mds_request leave(std::uint32_t mds, std::uint64_t sequence) {
    proto::Mds_request request;
    request.set_session(1);
    request.set_sequence(sequence);
    request.mutable_remove_mds()->set_mds(mds);
    return request;
  }
  std::vector<proto::Service> services(Connection_id connection) {
    proto::Mds_request request;
    request.mutable_list_services();
    auto const reply = ask(connection, request);
    std::vector<proto::Service> found;
    for (auto const& service : reply.services().services()) {
      if (service.kind() == "MDS") found.push_back(service);
    }
    return found;
  }
  bool has_event(Connection_id connection, std::string const& text) {
    return count_events(connection, text) != 0;
  }
  std::ptrdiff_t count_events(Connection_id connection, std::string const& text) {
    proto::Mds_request request;
    request.mutable_get_events();
    auto const reply = ask(connection, request);
    return std::count_if(reply.events().events().begin(), reply.events().events().end(),
                         [&](auto const& event) { return event.text() == text; });
  }

  sim::Event_queue queue_;
  Test_random random_;
  Quiet_log log_;
  sim::Sim_disk disk_{queue_, random_};
  Fake_network network_;
  Played_log entries_;
  std::unique_ptr<Metadata_server> server_;
  std::uint64_t connections_ = 0;
  std::uint64_t requests_ = 0;
};

TEST_F(Leadership, A_follower_names_the_leader_s_address_for_clients) {
  auto const client = connect(Role::client);
  entries_.leader = "10.0.0.2:2510";
  auto const reply = ask(client, lookup("/"));
  EXPECT_EQ(status(reply), Errc::not_leader);
  EXPECT_EQ(reply.leader(), "10.0.0.2:2511");
  entries_.leader.clear();
  EXPECT_EQ(ask(client, open(1)).leader(), "");
}

TEST_F(Leadership, A_new_leader_makes_the_cluster_registers_itself_and_says_so) {
  lead();
  auto const tool = connect(Role::tool);
  auto const found = services(tool);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].id(), 1u);
  EXPECT_EQ(found[0].state(), "avail");
  EXPECT_TRUE(found[0].is_master());
  EXPECT_TRUE(has_event(tool, "MDS#1 at 10.0.0.1:2510 became master"));
  EXPECT_EQ(ask(tool, open(1)).session().servers(0), "10.0.0.1:2511");
}

TEST_F(Leadership, Waiting_commands_are_sent_to_the_next_leader_not_answered) {
  lead();
  auto const client = connect(Role::client);
  ask(client, open(1));
  auto const id = post(client, create("/a", 2));
  EXPECT_FALSE(answer(client, id).has_value());
  entries_.leader = "10.0.0.2:2510";
  entries_.lead(false);
  EXPECT_EQ(status(answer(client, id)), Errc::not_leader);
  // Another leader's entry at the same index is nobody's answer here.
  network_.sent.clear();
  entries_.replace({""});
  EXPECT_TRUE(network_.sent[client].empty());
  // Asked again with the same number it happens, once.
  lead();
  EXPECT_EQ(ask(client, create("/a", 2)).status(), 0u);
  auto const again = ask(client, create("/a", 2));
  EXPECT_EQ(again.status(), 0u);
  EXPECT_EQ(status(ask(client, create("/a", 3))), Errc::exists);
}

TEST_F(Leadership, Sessions_survive_a_change_of_leader_and_have_their_whole_time_again) {
  lead();
  auto const client = connect(Role::client);
  ask(client, open(1));
  settle(seconds(8));
  entries_.lead(false);
  settle(seconds(8));
  lead();
  settle(seconds(7));
  EXPECT_EQ(ask(client, create("/a", 2)).status(), 0u);
  settle(seconds(11));
  EXPECT_EQ(status(ask(client, create("/b", 3))), Errc::session_expired);
}

TEST_F(Leadership, A_read_that_waits_while_the_leadership_ends_is_not_answered_from_here) {
  lead();
  auto const client = connect(Role::client);
  entries_.holds_reads = true;
  auto const id = post(client, lookup("/"));
  entries_.leader = "10.0.0.2:2510";
  entries_.lead(false);
  for (auto& done : std::exchange(entries_.barriers, {})) done(entries_.last);
  EXPECT_EQ(status(answer(client, id)), Errc::not_leader);
}

TEST_F(Leadership, A_follower_watches_nobody_and_proposes_nothing) {
  lead();
  auto const client = connect(Role::client);
  ask(client, open(1));
  entries_.lead(false);
  entries_.proposed.clear();
  for (int i = 0; i < 300; ++i) {
    queue_.run_until(queue_.now() + milliseconds(100));
    server_->on_tick();
  }
  EXPECT_TRUE(entries_.proposed.empty());
}

TEST_F(Leadership, A_server_that_joins_becomes_a_member_and_clients_are_told) {
  lead();
  auto const tool = connect(Role::tool);
  ask(tool, open(1));
  auto const joined = ask(tool, join(9, "10.0.0.2:2510", 2));
  EXPECT_EQ(joined.created_mds().mds(), 2u);
  EXPECT_EQ(joined.created_mds().cluster_uuid(), "uuid-1");
  ASSERT_EQ(entries_.all.size(), 2u);
  EXPECT_EQ(entries_.all[1].address, "10.0.0.2:2510");
  EXPECT_EQ(services(tool)[1].state(), "learning");
  proto::Mds_request beat;
  beat.set_session(1);
  beat.mutable_heartbeat();
  EXPECT_EQ(ask(tool, beat).heartbeat().servers_size(), 2);
  EXPECT_EQ(ask(tool, beat).heartbeat().servers_size(), 0);
  // The same repository again: the same id. Another one at its address: no.
  EXPECT_EQ(ask(tool, join(9, "10.0.0.2:2510", 3)).created_mds().mds(), 2u);
  EXPECT_EQ(status(ask(tool, join(10, "10.0.0.2:2510", 4))), Errc::exists);
}

TEST_F(Leadership, A_server_is_not_removed_if_the_others_could_not_decide) {
  lead();
  auto const tool = connect(Role::tool);
  ask(tool, open(1));
  EXPECT_EQ(status(ask(tool, leave(1, 2))), Errc::refused);  // the only one
  ask(tool, join(8, "10.0.0.2:2510", 3));
  ask(tool, join(9, "10.0.0.3:2510", 4));
  for (auto& member : entries_.all) member.is_voter = true;
  entries_.all[1].is_active = false;
  auto const refused = ask(tool, leave(3, 5));
  EXPECT_EQ(status(refused), Errc::refused);
  EXPECT_NE(refused.text().find("only 1 of 2"), std::string::npos) << refused.text();
  EXPECT_EQ(ask(tool, leave(2, 6)).status(), 0u);  // the one that is down
  EXPECT_EQ(entries_.all.size(), 2u);
  EXPECT_EQ(status(ask(tool, leave(2, 7))), Errc::not_found);
}

TEST_F(Leadership, Trouble_with_a_member_is_told_once_and_its_end_too) {
  lead();
  auto const tool = connect(Role::tool);
  ask(tool, open(1));
  ask(tool, join(8, "10.0.0.2:2510", 2));
  entries_.all[1].is_voter = true;
  entries_.all[1].lag = 5000;
  settle(seconds(4));
  EXPECT_TRUE(has_event(tool, "MDS#2 (10.0.0.2:2510) lags behind for more than 1000 rounds"));
  entries_.all[1].lag = 0;
  entries_.all[1].has_lost = true;
  settle(seconds(4));
  EXPECT_EQ(services(tool)[1].state(), "outdated");
  entries_.all[1].has_lost = false;
  settle(seconds(4));
  EXPECT_EQ(count_events(tool, "MDS#2 (10.0.0.2:2510) is up to date again"), 1);
}

}  // namespace
}  // namespace pstorage::mds
