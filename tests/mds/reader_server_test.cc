// What the leader does for sessions that read a file beside others, or wait for one.
#include <gtest/gtest.h>

#include "tests/mds/server_fixture.h"

namespace pstorage::mds {
namespace {

using std::chrono::seconds;

class Reader_server : public Server_fixture {
 protected:
  void SetUp() override {
    start();
    for (std::uint64_t session = 1; session <= 3; ++session) {
      connections_of_[session] = connect(Role::client);
      open_session(connections_of_[session], session, "mount[1]@host" + std::to_string(session));
    }
    file_ = create(at(1), 1, "/file").file().id();
  }

  Connection_id at(std::uint64_t session) { return connections_of_[session]; }
  proto::Mds_reply open(std::uint64_t session, bool shared, bool force = false) {
    proto::Mds_request request;
    request.mutable_open_file()->set_path("/file");
    request.mutable_open_file()->set_shared(shared);
    request.mutable_open_file()->set_force(force);
    return command(at(session), session, request);
  }
  int lost_shared(std::uint64_t session) {
    proto::Mds_request request;
    request.set_session(session);
    request.mutable_heartbeat()->add_shared_files(file_);
    return ask(at(session), request).heartbeat().lost_shared_files_size();
  }

  std::map<std::uint64_t, Connection_id> connections_of_;
  std::uint64_t file_ = 0;
};

TEST_F(Reader_server, A_reader_sent_away_is_told_by_push_and_by_heartbeat) {
  EXPECT_EQ(open(1, true).status(), 0u);
  EXPECT_EQ(lost_shared(1), 0);
  EXPECT_EQ(open(2, false, true).status(), 0u);
  auto const pushes = take_pushes(at(1));
  ASSERT_EQ(pushes.size(), 1u);
  EXPECT_EQ(pushes[0].lease_lost().file(), file_);
  // The push may be lost with its connection: then its next question tells it.
  EXPECT_EQ(lost_shared(1), 1);
}

TEST_F(Reader_server, A_writer_waits_for_the_reader_it_sent_away_that_was_heard_last) {
  EXPECT_EQ(open(1, true).status(), 0u);
  EXPECT_EQ(open(2, true).status(), 0u);
  run(seconds(3));
  heartbeat(at(2), 2);
  run(seconds(2));
  heartbeat(at(3), 3);
  // Session 2 was heard 2 s ago: it may answer reads for 8 s more, as far as we know.
  auto const taken = open(3, false, true).lease();
  EXPECT_GT(taken.fence_ms(), 7500u);
  EXPECT_LE(taken.fence_ms(), 8100u);
}

TEST_F(Reader_server, A_writer_waits_for_a_silent_reader_until_it_may_answer_no_more) {
  EXPECT_EQ(open(1, true).status(), 0u);
  for (int i = 0; i < 9; ++i) {
    run(seconds(1));
    heartbeat(at(2), 2);
  }
  EXPECT_EQ(status(open(2, false)), Errc::busy);
  run(seconds(2));
  auto const granted = open(2, false);
  EXPECT_EQ(granted.status(), 0u) << granted.text();
  EXPECT_EQ(granted.lease().fence_ms(), 0u);
}

TEST_F(Reader_server, Who_waits_for_a_dead_holder_is_told_to_ask_again_until_it_has_expired) {
  auto const pass = [this](int count) {
    for (int i = 0; i < count; ++i) {
      run(seconds(1));
      heartbeat(at(2), 2);
    }
  };
  EXPECT_EQ(open(1, false).status(), 0u);
  proto::Mds_request request;
  request.mutable_open_file()->set_path("/file");
  request.mutable_open_file()->set_wait_dead(true);
  EXPECT_EQ(status(command(at(2), 2, request)), Errc::busy);
  pass(4);
  EXPECT_EQ(status(command(at(2), 2, request)), Errc::unavailable);
  pass(9);
  EXPECT_EQ(command(at(2), 2, request).status(), 0u);
}

}  // namespace
}  // namespace pstorage::mds
