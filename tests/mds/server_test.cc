#include "tests/mds/server_fixture.h"

namespace pstorage::mds {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class Server : public Server_fixture {
 protected:
  void SetUp() override {
    start();
    client_ = connect(Role::client);
    open_session(client_, 1);
  }
  /// Opens and seals; the lease.
  proto::Lease lease(Connection_id connection, std::uint64_t session, std::string const& path) {
    proto::Mds_request request;
    request.mutable_open_file()->set_path(path);
    auto const opened = command(connection, session, request);
    EXPECT_EQ(opened.status(), 0u) << opened.text();
    proto::Mds_request seal;
    seal.mutable_finish_seal()->set_file(opened.lease().file().id());
    seal.mutable_finish_seal()->set_epoch(opened.lease().epoch());
    EXPECT_EQ(command(connection, session, seal).status(), 0u);
    return opened.lease();
  }
  proto::Mds_reply allocate(proto::Lease const& lease, std::uint32_t index) {
    proto::Mds_request request;
    request.mutable_allocate()->set_file(lease.file().id());
    request.mutable_allocate()->set_epoch(lease.epoch());
    request.mutable_allocate()->add_indexes(index);
    return command(client_, 1, request);
  }
  proto::Mds_reply report(proto::Lease const& lease, proto::Chunk const& chunk,
                          std::uint32_t failed) {
    proto::Mds_request request;
    auto& command_ = *request.mutable_report_failed();
    command_.set_file(lease.file().id());
    command_.set_epoch(lease.epoch());
    auto& one = *command_.add_chunks();
    one.set_chunk(chunk.chunk());
    one.set_version(chunk.version());
    one.add_failed(failed);
    return command(client_, 1, request);
  }
  /// Time passes with everybody alive.
  void live(Duration duration, std::vector<Played_cs> const& servers) {
    auto const end = queue_.now() + duration;
    while (queue_.now() < end) {
      heartbeat(client_, 1);
      for (auto const& cs : servers) cs_heartbeat(cs);
      run(milliseconds(500));
    }
  }
  Connection_id client_;
};

TEST_F(Server, Answers_commands_after_they_are_durable_and_queries_from_what_is_committed) {
  EXPECT_EQ(create(client_, 1, "/file").status(), 0u);
  proto::Mds_request request;
  request.mutable_lookup()->set_path("/file");
  auto const found = ask(client_, request);
  EXPECT_EQ(found.file().size(), 1ull << 30);
  EXPECT_EQ(found.mds(), 1u);
  request.mutable_lookup()->set_path("/none");
  EXPECT_EQ(status(ask(client_, request)), Errc::not_found);
}

TEST_F(Server, A_query_waits_for_what_was_committed_before_it_and_is_not_applied_yet) {
  has_turns_ = false;
  std::vector<std::uint64_t> creates;
  for (int i = 0; i < 3; ++i) {
    proto::Mds_request request;
    request.set_session(1);
    request.set_sequence(++sequences_[1]);
    request.mutable_create()->set_path("/file" + std::to_string(i));
    creates.push_back(post(client_, request));
  }
  run(std::chrono::milliseconds(20));
  proto::Mds_request lookup;
  lookup.mutable_lookup()->set_path("/file2");
  auto const query = post(client_, lookup);
  run(std::chrono::milliseconds(50));
  EXPECT_EQ(network_.sent[client_].size(), 2u);  // the third create waits
  has_turns_ = true;
  run(std::chrono::milliseconds(50));
  ASSERT_EQ(network_.sent[client_].size(), 4u);
  EXPECT_EQ(status(answer(client_, query)), Errc::ok);
}

TEST_F(Server, Everything_acknowledged_survives_kill_and_restart) {
  for (int i = 0; i < 20; ++i) create(client_, 1, "/file" + std::to_string(i));
  kill();
  start();
  auto const client = connect(Role::client);
  proto::Mds_request request;
  request.mutable_list_directory()->set_path("/");
  EXPECT_EQ(ask(client, request).files().files_size(), 20);
  // The session lives on, and a repeated command answers what it answered.
  proto::Mds_request repeated;
  repeated.set_session(1);
  repeated.set_sequence(sequences_[1]);
  repeated.mutable_create()->set_path("/file19");
  EXPECT_EQ(ask(client, repeated).status(), 0u);
}

TEST_F(Server, Roles_may_only_do_what_is_theirs) {
  auto const cs = connect(Role::cs);
  proto::Mds_request request;
  request.set_session(1);
  request.set_sequence(50);
  request.mutable_create()->set_path("/x");
  EXPECT_EQ(status(ask(cs, request)), Errc::refused);
  request.mutable_register_cs()->set_cs(1025);
  EXPECT_EQ(status(ask(client_, request)), Errc::refused);
  request.mutable_expire_sessions()->add_sessions(1);
  EXPECT_EQ(status(ask(client_, request)), Errc::refused);
  request.mutable_drop_offline();
  EXPECT_EQ(status(ask(client_, request)), Errc::refused);
  EXPECT_EQ(status(ask(client_, proto::Mds_request())), Errc::bad_request);
}

TEST_F(Server, A_malformed_message_ends_the_connection) {
  Message message;
  message.header.request_id = 9;
  message.meta = Slice::copy_of(as_bytes("\xff\xff\xff"));
  server_->on_message(client_, message);
  ASSERT_EQ(network_.closed.size(), 1u);
  EXPECT_EQ(network_.closed[0], client_);
}

TEST_F(Server, A_silent_session_expires_after_10_seconds_and_not_before) {
  run(seconds(9));
  EXPECT_EQ(heartbeat(client_, 1).status(), 0u);
  run(seconds(9));
  EXPECT_EQ(heartbeat(client_, 1).status(), 0u);
  run(seconds(11));
  EXPECT_EQ(status(heartbeat(client_, 1)), Errc::session_expired);
}

TEST_F(Server, After_a_restart_the_timeouts_begin_anew) {
  run(seconds(9));
  kill();
  start();
  auto const client = connect(Role::client);
  run(seconds(9));
  EXPECT_EQ(heartbeat(client, 1).status(), 0u);
}

TEST_F(Server, The_old_holder_of_a_lease_is_told_by_push_and_by_heartbeat) {
  create(client_, 1, "/file");
  auto const held = lease(client_, 1, "/file");
  auto const other = connect(Role::client);
  open_session(other, 2, "nbd[2]@host2");
  proto::Mds_request request;
  request.mutable_open_file()->set_path("/file");
  EXPECT_EQ(status(command(other, 2, request)), Errc::busy);
  EXPECT_EQ(heartbeat(client_, 1, {held.file().id()}).heartbeat().lost_files_size(), 0);
  request.mutable_open_file()->set_force(true);
  EXPECT_EQ(command(other, 2, request).status(), 0u);
  auto const pushes = take_pushes(client_);
  ASSERT_EQ(pushes.size(), 2u);
  EXPECT_EQ(pushes[0].lease_wanted().file(), held.file().id());
  EXPECT_TRUE(pushes[0].lease_wanted().exclusive());
  EXPECT_NE(pushes[0].lease_wanted().by().find("nbd[2]@host2"), std::string::npos);
  EXPECT_EQ(pushes[1].lease_lost().epoch(), held.epoch());
  EXPECT_NE(pushes[1].lease_lost().taken_by().find("nbd[2]@host2"), std::string::npos);
  EXPECT_EQ(heartbeat(client_, 1, {held.file().id()}).heartbeat().lost_files_size(), 1);
}

TEST_F(Server, A_directory_is_listed_in_pages) {
  for (int i = 0; i < 5; ++i) create(client_, 1, "/f" + std::to_string(i));
  proto::Mds_request request;
  auto& list = *request.mutable_list_directory();
  list.set_path("/");
  list.set_limit(2);
  std::string names;
  for (int page = 0; page < 3; ++page) {
    auto const answer = ask(client_, request);
    for (auto const& file : answer.files().files()) names += file.name() + " ";
    EXPECT_EQ(answer.files().more(), page < 2);
    list.set_after(answer.files().files().rbegin()->name());
  }
  EXPECT_EQ(names, "f0 f1 f2 f3 f4 ");
}

TEST_F(Server, A_silent_server_is_inactive_after_3_seconds_and_offline_later) {
  auto const tool = connect(Role::tool);
  open_session(tool, 5);
  proto::Mds_request config;
  config.mutable_set_config()->set_name("mds.wd.offline_tout");
  config.mutable_set_config()->set_value("20000");
  EXPECT_EQ(command(tool, 5, config).status(), 0u);
  auto const cs = add_server(tool, 5);
  live(seconds(10), {cs});
  EXPECT_EQ(cs_state(cs.id), "active");
  run(seconds(4));
  EXPECT_EQ(cs_state(cs.id), "inactive");
  EXPECT_EQ(cs_heartbeat(cs).status(), 0u);
  run(milliseconds(100));
  EXPECT_EQ(cs_state(cs.id), "active");
  run(seconds(30));
  EXPECT_EQ(cs_state(cs.id), "offline");
}

TEST_F(Server, A_lost_connection_makes_a_server_inactive_at_once) {
  auto const tool = connect(Role::tool);
  open_session(tool, 5);
  auto cs = add_server(tool, 5);
  disconnect(cs.connection);
  run(milliseconds(100));
  EXPECT_EQ(cs_state(cs.id), "inactive");
  EXPECT_EQ(attach(cs).status(), 0u);
  EXPECT_EQ(cs_state(cs.id), "active");
}

TEST_F(Server, A_second_process_of_a_running_server_must_wait) {
  auto const tool = connect(Role::tool);
  open_session(tool, 5);
  auto cs = add_server(tool, 5);
  auto copy = cs;
  copy.incarnation = 2;
  EXPECT_EQ(status(attach(copy)), Errc::unavailable);
  EXPECT_EQ(cs_heartbeat(cs).status(), 0u);
  disconnect(cs.connection);
  EXPECT_EQ(register_cs(copy).status(), 0u);
  EXPECT_EQ(status(attach(cs)), Errc::unavailable);
}

TEST_F(Server, Heartbeats_write_nothing) {
  auto const tool = connect(Role::tool);
  open_session(tool, 5);
  auto const cs = add_server(tool, 5);
  auto const before = server_->state().applied();
  for (int i = 0; i < 20; ++i) {
    heartbeat(client_, 1);
    heartbeat(tool, 5);
    cs_heartbeat(cs);
  }
  EXPECT_EQ(server_->state().applied(), before);
}

TEST_F(Server, A_failed_replica_is_synced_again_by_order_when_its_server_is_back) {
  auto const tool = connect(Role::tool);
  open_session(tool, 5);
  std::vector<Played_cs> servers = {add_server(tool, 5), add_server(tool, 5)};
  create(client_, 1, "/file", 2);
  auto const held = lease(client_, 1, "/file");
  auto const chunk = allocate(held, 0).map().chunks(0);
  ASSERT_EQ(chunk.replicas_size(), 2);
  auto& failed = servers[0];
  disconnect(failed.connection);
  run(milliseconds(50));
  EXPECT_EQ(report(held, chunk, failed.id).map().chunks(0).replicas_size(), 1);
  take_pushes(client_);
  ++failed.incarnation;
  EXPECT_EQ(attach(failed).status(), 0u);
  live(seconds(2), servers);
  auto const orders = take_pushes(failed.connection);
  ASSERT_EQ(orders.size(), 1u);
  auto const& order = orders[0].sync_orders().orders(0);
  EXPECT_EQ(order.chunk(), chunk.chunk());
  EXPECT_EQ(order.version(), 3u);
  EXPECT_TRUE(order.writer_expected());
  ASSERT_EQ(order.sources_size(), 1);
  EXPECT_EQ(order.sources(0).cs(), servers[1].id);
  auto const maps = take_pushes(client_);
  ASSERT_GE(maps.size(), 1u);
  EXPECT_EQ(maps.back().map_changed().chunks(0).version(), 3u);
  proto::Mds_request done;
  done.mutable_sync_done()->set_cs(failed.id);
  done.mutable_sync_done()->set_chunk(chunk.chunk());
  done.mutable_sync_done()->set_version(3);
  done.mutable_sync_done()->set_epoch(held.epoch());
  EXPECT_EQ(command(failed.connection, failed.session, done).status(), 0u);
  EXPECT_EQ(take_pushes(client_).back().map_changed().chunks(0).version(), 4u);
}

TEST_F(Server, A_newcomer_the_writer_cannot_reach_is_not_ordered_again_and_again) {
  auto const tool = connect(Role::tool);
  open_session(tool, 5);
  std::vector<Played_cs> servers = {add_server(tool, 5), add_server(tool, 5)};
  create(client_, 1, "/file", 2);
  auto const held = lease(client_, 1, "/file");
  proto::Chunk chunk = allocate(held, 0).map().chunks(0);
  // Alive for the MDS, out of reach for the writer, who reports it again with every new map.
  for (int i = 0; i < 40; ++i) {
    auto const maps = report(held, chunk, servers[0].id).map();
    chunk = maps.chunks(0);
    live(milliseconds(250), servers);
    auto const pushed = take_pushes(client_);
    if (!pushed.empty()) chunk = pushed.back().map_changed().chunks(0);
  }
  EXPECT_GT(chunk.version(), 4u);   // it is tried
  EXPECT_LT(chunk.version(), 20u);  // but not each time
}

TEST_F(Server, A_holder_that_reconnects_gets_its_maps_again) {
  auto const tool = connect(Role::tool);
  open_session(tool, 5);
  add_server(tool, 5);
  create(client_, 1, "/file");
  auto const held = lease(client_, 1, "/file");
  auto const chunk = allocate(held, 0).map().chunks(0);
  disconnect(client_);
  client_ = connect(Role::client);
  EXPECT_EQ(heartbeat(client_, 1).status(), 0u);
  auto const pushes = take_pushes(client_);
  ASSERT_EQ(pushes.size(), 1u);
  EXPECT_EQ(pushes[0].map_changed().chunks(0).chunk(), chunk.chunk());
}

TEST_F(Server, Who_asks_for_a_lease_again_gets_the_map_as_it_is_now) {
  auto const tool = connect(Role::tool);
  open_session(tool, 5);
  add_server(tool, 5);
  create(client_, 1, "/file");
  proto::Mds_request request;
  request.mutable_open_file()->set_path("/file");
  request.set_session(1);
  request.set_sequence(sequences_[1] + 1);  // as lease() will
  EXPECT_EQ(allocate(lease(client_, 1, "/file"), 0).status(), 0u);
  // The first answer got lost.
  EXPECT_EQ(ask(client_, request).lease().map().chunks_size(), 1);
}

TEST_F(Server, Chunks_of_removed_files_are_deleted_and_asked_for_until_they_are) {
  auto const tool = connect(Role::tool);
  open_session(tool, 5);
  auto const cs = add_server(tool, 5);
  create(client_, 1, "/file");
  auto const held = lease(client_, 1, "/file");
  auto const chunk = allocate(held, 0).map().chunks(0);
  proto::Mds_request close;
  close.mutable_close_file()->set_file(held.file().id());
  close.mutable_close_file()->set_epoch(held.epoch());
  command(client_, 1, close);
  proto::Mds_request removal;
  removal.mutable_remove()->set_path("/file");
  EXPECT_EQ(command(client_, 1, removal).status(), 0u);
  auto pushes = take_pushes(cs.connection);
  ASSERT_EQ(pushes.size(), 1u);
  EXPECT_EQ(pushes[0].delete_chunks().chunks(0), chunk.chunk());
  live(seconds(12), {cs});
  pushes = take_pushes(cs.connection);
  ASSERT_EQ(pushes.size(), 1u);
  proto::Mds_request deleted;
  deleted.mutable_deleted_chunks()->set_cs(cs.id);
  deleted.mutable_deleted_chunks()->add_chunks(chunk.chunk());
  EXPECT_EQ(command(cs.connection, cs.session, deleted).status(), 0u);
  live(seconds(12), {cs});
  EXPECT_TRUE(take_pushes(cs.connection).empty());
}

TEST_F(Server, Dead_servers_of_idle_files_are_replaced_after_the_offline_timeout) {
  auto const tool = connect(Role::tool);
  open_session(tool, 5);
  proto::Mds_request config;
  config.mutable_set_config()->set_name("mds.wd.offline_tout");
  config.mutable_set_config()->set_value("5000");
  command(tool, 5, config);
  std::vector<Played_cs> servers = {add_server(tool, 5), add_server(tool, 5)};
  create(client_, 1, "/file", 2);
  auto const held = lease(client_, 1, "/file");
  auto const chunk = allocate(held, 0).map().chunks(0);
  proto::Mds_request close;
  close.mutable_close_file()->set_file(held.file().id());
  close.mutable_close_file()->set_epoch(held.epoch());
  command(client_, 1, close);
  auto const dead = servers[0];
  servers[0] = add_server(tool, 5);
  disconnect(dead.connection);
  live(seconds(8), servers);
  EXPECT_EQ(cs_state(dead.id), "offline");
  auto const orders = take_pushes(servers[0].connection);
  ASSERT_GE(orders.size(), 1u);
  EXPECT_EQ(orders[0].sync_orders().orders(0).chunk(), chunk.chunk());
  EXPECT_FALSE(orders[0].sync_orders().orders(0).writer_expected());
}

TEST_F(Server, Status_tells_what_answers_now) {
  auto const tool = connect(Role::tool);
  open_session(tool, 5);
  std::vector<Played_cs> servers = {add_server(tool, 5), add_server(tool, 5)};
  create(client_, 1, "/file", 2);
  auto const held = lease(client_, 1, "/file");
  allocate(held, 0);
  proto::Mds_request request;
  request.mutable_get_status();
  run(seconds(2));
  live(seconds(2), servers);
  auto status = ask(tool, request).cluster_status();
  EXPECT_EQ(status.health(), "healthy");
  EXPECT_EQ(status.chunks().at("healthy"), 1u);
  EXPECT_EQ(status.total_bytes(), 200ull << 30);
  EXPECT_EQ(status.chunk_replicas(), 2u);
  disconnect(servers[0].connection);
  run(milliseconds(50));
  status = ask(tool, request).cluster_status();
  EXPECT_EQ(status.health(), "degraded");
  EXPECT_EQ(status.chunks().at("healthy"), 0u);
  EXPECT_EQ(status.chunks().at("urgent"), 1u);
  disconnect(servers[1].connection);
  run(milliseconds(50));
  EXPECT_EQ(ask(tool, request).cluster_status().chunks().at("offline"), 1u);
}

TEST_F(Server, A_failed_log_ends_the_server_and_answers_nothing_more) {
  disk_.set_fault([](sim::Disk_call call, std::string const&) -> std::optional<std::error_code> {
    if (call == sim::Disk_call::sync) return std::make_error_code(std::errc::io_error);
    return std::nullopt;
  });
  proto::Mds_request request;
  request.set_session(1);
  request.set_sequence(++sequences_[1]);
  request.mutable_create()->set_path("/file");
  post(client_, request);
  run(milliseconds(100));
  EXPECT_NE(fatal_.find("cannot sync the metadata log"), std::string::npos);
  EXPECT_TRUE(network_.sent[client_].empty());
}

TEST_F(Server, A_full_disk_refuses_what_grows_and_lets_through_what_gives_back) {
  create(client_, 1, "/file");
  reserve_ = 1u << 20;
  kill();
  start();
  client_ = connect(Role::client);
  disk_.set_capacity(disk_.used_bytes() + 4096);
  run(seconds(2));
  auto const refused = create(client_, 1, "/other");
  EXPECT_EQ(status(refused), Errc::no_space);
  EXPECT_NE(refused.text().find("disk of the metadata server is full"), std::string::npos);
  proto::Mds_request removal;
  removal.mutable_remove()->set_path("/file");
  EXPECT_EQ(command(client_, 1, removal).status(), 0u);
  disk_.set_capacity(sim::unlimited_bytes);
  run(seconds(2));
  EXPECT_EQ(create(client_, 1, "/other").status(), 0u);
}

TEST_F(Server, A_repository_of_another_cluster_is_refused) {
  kill();
  make("uuid-2");
  auto const started = server_->start();
  ASSERT_FALSE(started.has_value());
  EXPECT_EQ(errc_of(started.error().code), Errc::wrong_cluster);
}

}  // namespace
}  // namespace pstorage::mds
