// What stat, top and get-event are told.
#include "tests/mds/server_fixture.h"

namespace pstorage::mds {
namespace {

class Status : public Server_fixture {
 protected:
  void SetUp() override {
    start();
    client_ = connect(Role::client);
    open_session(client_, 1);
  }
  proto::Service service(std::string const& kind) {
    proto::Mds_request request;
    request.mutable_get_status();
    auto const reply = ask(client_, request);
    for (auto const& one : reply.cluster_status().services()) {
      if (one.kind() == kind) return one;
    }
    ADD_FAILURE() << "no " << kind;
    return {};
  }
  Connection_id client_;
};

TEST_F(Status, Has_what_servers_and_clients_do_a_second) {
  auto const cs = add_server(client_, 1);
  for (std::uint64_t second = 0; second < 3; ++second) {
    proto::Mds_request request;
    request.set_session(cs.session);
    auto& server = *request.mutable_cs_heartbeat();
    server.set_cs(cs.id);
    server.set_incarnation(cs.incarnation);
    server.set_write_bytes(second * 4096'000);
    server.set_write_ops(second * 1000);
    server.set_pulled_bytes(second * 500);
    server.set_wall_ms(queue_.wall_ms() - 2500);
    server.set_version("7.1");
    ask(cs.connection, request);
    proto::Mds_request other;
    other.set_session(1);
    other.mutable_heartbeat()->set_read_ops(second * 30);
    other.mutable_heartbeat()->set_io_latency_us(900);
    ask(client_, other);
    run(std::chrono::seconds(1));
  }
  auto const server = service("CS");
  EXPECT_NEAR(static_cast<double>(server.write_ops_per_s()), 1000, 100);
  EXPECT_NEAR(static_cast<double>(server.write_bytes_per_s()), 4096'000, 409'600);
  EXPECT_NEAR(static_cast<double>(server.pulled_bytes_per_s()), 500, 50);
  EXPECT_EQ(server.read_ops_per_s(), 0u);
  EXPECT_EQ(server.version(), "7.1");
  EXPECT_EQ(server.clock_offset_ms(), -2500);
  auto const client = service("CLIENT");
  EXPECT_NEAR(static_cast<double>(client.read_ops_per_s()), 30, 3);
  EXPECT_EQ(client.io_latency_us(), 900u);
}

TEST_F(Status, The_newest_events_can_be_asked_for) {
  for (int i = 0; i < 5; ++i) {
    proto::Mds_request request;
    request.mutable_set_config()->set_name("mds.alloc.fill_margin");
    request.mutable_set_config()->set_value(std::to_string(i));
    EXPECT_EQ(status(command(client_, 1, request)), Errc::ok);
  }
  proto::Mds_request request;
  request.mutable_get_events()->set_newest(2);
  auto const reply = ask(client_, request);
  ASSERT_EQ(reply.events().events_size(), 2);
  EXPECT_EQ(reply.events().events(0).text(), "mds.alloc.fill_margin set to 3");
  EXPECT_EQ(reply.events().events(1).text(), "mds.alloc.fill_margin set to 4");
  request.mutable_get_events()->set_newest(1000);
  EXPECT_GE(ask(client_, request).events().events_size(), 5);
}

TEST_F(Status, Chunk_servers_are_told_the_level_of_their_log) {
  auto const cs = add_server(client_, 1);
  EXPECT_EQ(cs_heartbeat(cs).registered_cs().log_level(), 0u);
  proto::Mds_request request;
  request.mutable_set_config()->set_name("cs.log.level");
  request.mutable_set_config()->set_value("4");
  EXPECT_EQ(status(command(client_, 1, request)), Errc::ok);
  EXPECT_EQ(cs_heartbeat(cs).registered_cs().log_level(), 4u);
  EXPECT_EQ(register_cs(cs).registered_cs().log_level(), 4u);
}

}  // namespace
}  // namespace pstorage::mds
