// The leader's healing with played chunk servers: rm-cs from the command to the end, inventories,
// advice.
#include "mds/state/settings.h"
#include "tests/mds/server_fixture.h"

namespace pstorage::mds {
namespace {

using std::chrono::seconds;

class Healing_server : public Server_fixture {
 protected:
  void SetUp() override {
    start();
    client_ = connect(Role::client);
    tool_ = connect(Role::tool);
    open_session(client_, 1);
    open_session(tool_, 5);
  }
  /// A closed file with one chunk on the servers that there are.
  std::uint64_t make_chunk(std::uint32_t norm) {
    create(client_, 1, "/file", norm);
    proto::Mds_request open;
    open.mutable_open_file()->set_path("/file");
    auto const lease = command(client_, 1, open).lease();
    proto::Mds_request seal;
    seal.mutable_finish_seal()->set_file(lease.file().id());
    seal.mutable_finish_seal()->set_epoch(lease.epoch());
    command(client_, 1, seal);
    proto::Mds_request allocate;
    allocate.mutable_allocate()->set_file(lease.file().id());
    allocate.mutable_allocate()->set_epoch(lease.epoch());
    allocate.mutable_allocate()->add_indexes(0);
    auto const chunk = command(client_, 1, allocate).map().chunks(0).chunk();
    proto::Mds_request close;
    close.mutable_close_file()->set_file(lease.file().id());
    close.mutable_close_file()->set_epoch(lease.epoch());
    command(client_, 1, close);
    return chunk;
  }
  proto::Mds_reply release(std::uint32_t cs, bool forced = false) {
    proto::Mds_request request;
    request.mutable_release_cs()->set_cs(cs);
    request.mutable_release_cs()->set_forced(forced);
    return command(tool_, 5, request);
  }
  bool is_slow(std::uint32_t cs) {
    proto::Mds_request request;
    request.mutable_list_services();
    auto const reply = ask(tool_, request);
    for (auto const& one : reply.services().services()) {
      if (one.kind() == "CS" && one.id() == cs) return one.slow();
    }
    return false;
  }
  int events_with(std::string const& text) {
    proto::Mds_request request;
    request.mutable_get_events();
    auto const reply = ask(tool_, request);
    int found = 0;
    for (auto const& event : reply.events().events()) {
      found += event.text().find(text) != std::string::npos ? 1 : 0;
    }
    return found;
  }
  std::string space_state() {
    proto::Mds_request request;
    request.mutable_get_status();
    return ask(tool_, request).cluster_status().space_state();
  }
  std::uint64_t replicas_on(std::uint32_t cs) {
    return server_->state().database().number("SELECT count(*) FROM replica WHERE cs = ?", 0, cs);
  }
  /// Time passes; every server of `servers` does what it is told.
  void live(Duration time, std::vector<Played_cs> const& servers) {
    for (auto const end = queue_.now() + time; queue_.now() < end;) {
      for (auto const& cs : servers) {
        cs_heartbeat(cs);
        for (auto const& push : take_pushes(cs.connection)) obey(cs, push);
      }
      heartbeat(client_, 1);
      heartbeat(tool_, 5);
      run(std::chrono::milliseconds(200));
    }
  }
  void obey(Played_cs const& cs, proto::Mds_push const& push) {
    for (auto const& order : push.sync_orders().orders()) {
      proto::Mds_request request;
      request.mutable_sync_done()->set_cs(cs.id);
      request.mutable_sync_done()->set_chunk(order.chunk());
      request.mutable_sync_done()->set_version(order.version());
      command(cs.connection, cs.session, request);
    }
    if (push.delete_chunks().chunks().empty()) return;
    proto::Mds_request request;
    request.mutable_deleted_chunks()->set_cs(cs.id);
    for (auto const chunk : push.delete_chunks().chunks()) {
      request.mutable_deleted_chunks()->add_chunks(chunk);
      deleted_.insert({cs.id, chunk});
    }
    command(cs.connection, cs.session, request);
  }
  std::vector<std::uint32_t> holders(std::uint64_t chunk) {
    std::vector<std::uint32_t> found;
    Rows rows(server_->state().database(),
              "SELECT cs FROM replica WHERE chunk = ? AND state = 0 ORDER BY cs");
    rows.bind(1, chunk);
    while (rows.next()) found.push_back(rows.u32(0));
    return found;
  }
  proto::Stop_advice ok_to_stop(std::vector<std::uint32_t> const& servers) {
    proto::Mds_request request;
    for (auto const cs : servers) request.mutable_ok_to_stop()->add_servers(cs);
    return ask(tool_, request).stop_advice();
  }
  proto::Explanation why(std::uint64_t chunk) {
    proto::Mds_request request;
    request.mutable_explain()->set_chunk(chunk);
    return ask(tool_, request).explanation();
  }
  std::string shown_state(std::uint32_t cs) {
    proto::Mds_request request;
    request.mutable_list_services();
    auto const reply = ask(tool_, request);
    for (auto const& service : reply.services().services()) {
      if (service.kind() == "CS" && service.id() == cs) return service.state();
    }
    return "gone";
  }

  Connection_id client_;
  Connection_id tool_;
  std::set<std::pair<std::uint32_t, std::uint64_t>> deleted_;
};

TEST_F(Healing_server, A_released_server_gives_its_replicas_away_and_is_gone) {
  std::vector<Played_cs> servers = {add_server(tool_, 5), add_server(tool_, 5)};
  auto const chunk = make_chunk(2);
  servers.push_back(add_server(tool_, 5));
  auto const leaving = servers[0];
  ASSERT_EQ(release(leaving.id).status(), 0u);
  EXPECT_EQ(shown_state(leaving.id), "releasing");
  live(seconds(6), {servers[1], servers[2]});
  EXPECT_EQ(holders(chunk), (std::vector<std::uint32_t>{servers[1].id, servers[2].id}));
  EXPECT_EQ(shown_state(leaving.id), "gone");
  EXPECT_EQ(cs_state(leaving.id), "dropped");
  EXPECT_NE(std::find(network_.closed.begin(), network_.closed.end(), leaving.connection),
            network_.closed.end());
  auto again = leaving;
  again.session = 9000;
  EXPECT_EQ(status(attach(again)), Errc::dropped);
}

TEST_F(Healing_server, A_dead_server_is_given_up_by_force_at_once) {
  std::vector<Played_cs> servers = {add_server(tool_, 5), add_server(tool_, 5)};
  auto const chunk = make_chunk(2);
  servers.push_back(add_server(tool_, 5));
  disconnect(servers[0].connection);
  run(seconds(1));
  ASSERT_EQ(release(servers[0].id, true).status(), 0u);
  live(seconds(6), {servers[1], servers[2]});
  EXPECT_EQ(cs_state(servers[0].id), "dropped");
  EXPECT_EQ(holders(chunk), (std::vector<std::uint32_t>{servers[1].id, servers[2].id}));
}

TEST_F(Healing_server, Fewer_replicas_are_taken_away_by_themselves_and_their_space_returns) {
  std::vector<Played_cs> servers = {add_server(tool_, 5), add_server(tool_, 5),
                                    add_server(tool_, 5)};
  auto const chunk = make_chunk(3);
  proto::Mds_request request;
  request.mutable_set_attributes()->set_path("/file");
  request.mutable_set_attributes()->mutable_attributes()->set_replicas_norm(2);
  ASSERT_EQ(command(tool_, 5, request).status(), 0u);
  live(seconds(5), servers);
  EXPECT_EQ(holders(chunk).size(), 2u);
  EXPECT_EQ(deleted_.size(), 1u);
}

TEST_F(Healing_server, A_chunk_that_nobody_knows_is_deleted_after_an_inventory) {
  std::vector<Played_cs> servers = {add_server(tool_, 5)};
  auto const chunk = make_chunk(1);
  proto::Mds_request inventory;
  inventory.mutable_inventory()->set_cs(servers[0].id);
  inventory.mutable_inventory()->add_chunks(chunk);
  ask(servers[0].connection, inventory);
  live(seconds(3), servers);
  EXPECT_TRUE(deleted_.empty());
  proto::Mds_request remove;
  remove.mutable_remove()->set_path("/file");
  ASSERT_EQ(command(tool_, 5, remove).status(), 0u);
  live(seconds(3), servers);
  EXPECT_EQ(deleted_.size(), 1u);
  deleted_.clear();
  // The deletion was lost with the disk's cache: the file is there again.
  ask(servers[0].connection, inventory);
  live(seconds(3), servers);
  EXPECT_EQ(deleted_.size(), 1u);
}

TEST_F(Healing_server, Only_the_server_itself_may_tell_its_inventory) {
  std::vector<Played_cs> servers = {add_server(tool_, 5), add_server(tool_, 5)};
  proto::Mds_request inventory;
  inventory.mutable_inventory()->set_cs(servers[0].id);
  EXPECT_EQ(status(ask(servers[1].connection, inventory)), Errc::refused);
  EXPECT_EQ(status(ask(tool_, inventory)), Errc::refused);
}

TEST_F(Healing_server, Stopping_is_advised_against_when_the_minimum_would_be_missed) {
  std::vector<Played_cs> servers = {add_server(tool_, 5), add_server(tool_, 5)};
  make_chunk(2);
  EXPECT_TRUE(ok_to_stop({servers[0].id}).ok());
  auto const both = ok_to_stop({servers[0].id, servers[1].id});
  EXPECT_FALSE(both.ok());
  EXPECT_EQ(both.reason().substr(0, 45), "1 chunk of 1 file could not be read any more:");
  ASSERT_EQ(both.paths_size(), 1);
  EXPECT_EQ(both.paths(0), "/file");
  disconnect(servers[1].connection);
  run(seconds(1));
  EXPECT_FALSE(ok_to_stop({servers[0].id}).ok());
  EXPECT_TRUE(ok_to_stop({servers[1].id}).ok());
}

TEST_F(Healing_server, The_only_metadata_server_must_not_be_stopped) {
  proto::Mds_request request;
  request.mutable_ok_to_stop()->add_mds(1);
  EXPECT_FALSE(ask(tool_, request).stop_advice().ok());
}

TEST_F(Healing_server, Why_tells_what_is_missing_and_what_happens_next) {
  std::vector<Played_cs> servers = {add_server(tool_, 5), add_server(tool_, 5)};
  auto const chunk = make_chunk(2);
  auto told = why(chunk);
  EXPECT_EQ(told.healthy(), 1u);
  EXPECT_EQ(told.chunks_size(), 0);
  disconnect(servers[1].connection);
  run(seconds(1));
  told = why(chunk);
  ASSERT_EQ(told.chunks_size(), 1);
  EXPECT_EQ(told.chunks(0).state(), "urgent");
  EXPECT_NE(told.chunks(0).reason().find("1 of 2 replicas can be used"), std::string::npos);
  EXPECT_NE(told.chunks(0).reason().find("is inactive"), std::string::npos);
  EXPECT_NE(told.chunks(0).next().find("a new replica is made in 29"), std::string::npos)
      << told.chunks(0).next();
  disconnect(servers[0].connection);
  run(seconds(1));
  told = why(chunk);
  EXPECT_EQ(told.chunks(0).state(), "offline");
  EXPECT_NE(told.chunks(0).next().find("nobody else has this data"), std::string::npos);
  proto::Mds_request unknown;
  unknown.mutable_explain()->set_chunk(4711);
  EXPECT_EQ(status(ask(tool_, unknown)), Errc::not_found);
}

TEST_F(Healing_server, A_hung_disk_is_flagged_told_and_comes_back) {
  std::vector<Played_cs> servers = {add_server(tool_, 5), add_server(tool_, 5),
                                    add_server(tool_, 5)};
  live(seconds(3), servers);
  EXPECT_FALSE(cs_heartbeat(servers[1]).registered_cs().probe());
  servers[1].stalled_ms = 6000;
  live(seconds(3), servers);
  EXPECT_TRUE(is_slow(servers[1].id));
  EXPECT_FALSE(is_slow(servers[0].id));
  EXPECT_TRUE(cs_heartbeat(servers[1]).registered_cs().probe());
  EXPECT_EQ(events_with("CS#1026 is slow: its disk has not finished a request for 6000 ms"), 1);
  EXPECT_EQ(cs_state(servers[1].id), "active");
  make_chunk(2);  // goes to the others
  EXPECT_EQ(replicas_on(servers[1].id), 0u);
  servers[1].stalled_ms = 0;
  live(seconds(40), servers);
  EXPECT_FALSE(is_slow(servers[1].id));
  EXPECT_EQ(events_with("CS#1026 is as quick as the others again"), 1);
}

TEST_F(Healing_server, Space_that_runs_low_is_told_once) {
  std::vector<Played_cs> servers = {add_server(tool_, 5), add_server(tool_, 5)};
  live(seconds(5), servers);
  EXPECT_EQ(space_state(), "ok");
  EXPECT_EQ(events_with("Space runs low"), 0);
  for (auto& cs : servers) cs.free_bytes = 15ull << 30;
  live(seconds(5), servers);
  EXPECT_EQ(space_state(), "low");
  EXPECT_EQ(events_with("Space runs low"), 1);
  for (auto& cs : servers) cs.free_bytes = 1ull << 30;
  live(seconds(5), servers);
  EXPECT_EQ(space_state(), "full");
  EXPECT_EQ(events_with("The cluster is full"), 1);
  for (auto& cs : servers) cs.free_bytes = 90ull << 30;
  live(seconds(5), servers);
  EXPECT_EQ(space_state(), "ok");
  EXPECT_EQ(events_with("There is room again"), 1);
}

}  // namespace
}  // namespace pstorage::mds
