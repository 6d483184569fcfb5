// What is asked of whoever serves a file, through the leader.
#include <gtest/gtest.h>

#include "tests/mds/server_fixture.h"

namespace pstorage::mds {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class Holder_question : public Server_fixture {
 protected:
  void SetUp() override {
    start();
    client_ = connect(Role::client);
    open_session(client_, 1);
  }
  /// The id of /file, which the session now holds.
  std::uint64_t open(Connection_id connection, std::uint64_t session) {
    proto::Mds_request request;
    request.mutable_open_file()->set_path("/file");
    auto const opened = command(connection, session, request);
    EXPECT_EQ(opened.status(), 0u) << opened.text();
    return opened.lease().file().id();
  }

  Connection_id client_;
};

TEST_F(Holder_question, Passes_a_question_on_to_the_holder_of_a_lease_and_its_answer_back) {
  create(client_, 1, "/file");
  auto const file = open(client_, 1);
  auto const asker = connect(Role::tool);
  proto::Mds_request ask_it;
  ask_it.mutable_ask_holder()->set_path("/file");
  ask_it.mutable_ask_holder()->set_timeout_ms(3000);
  ask_it.mutable_ask_holder()->mutable_request()->mutable_lend();
  auto const id = post(asker, ask_it);
  run(milliseconds(20));
  auto const pushes = take_pushes(client_);
  ASSERT_EQ(pushes.size(), 1u);
  EXPECT_EQ(pushes[0].question().file(), file);
  EXPECT_TRUE(pushes[0].question().request().has_lend());
  proto::Mds_request answer_it;
  answer_it.mutable_holder_answer()->set_question(pushes[0].question().question());
  answer_it.mutable_holder_answer()->set_status(static_cast<std::uint32_t>(Errc::refused));
  answer_it.mutable_holder_answer()->set_text("no");
  EXPECT_EQ(status(ask(asker, answer_it)), Errc::ok);  // not the holder: dropped
  EXPECT_EQ(status(ask(client_, answer_it)), Errc::ok);
  auto const reply = answer(asker, id);
  EXPECT_EQ(status(reply), Errc::refused);
  EXPECT_EQ(reply.text(), "no");
}

TEST_F(Holder_question, A_holder_that_does_not_answer_is_named) {
  create(client_, 1, "/file");
  proto::Mds_request ask_it;
  ask_it.mutable_ask_holder()->set_path("/file");
  ask_it.mutable_ask_holder()->set_timeout_ms(3000);
  EXPECT_EQ(status(ask(client_, ask_it)), Errc::not_found);  // nobody holds it
  auto const holder = connect(Role::client);
  open_session(holder, 2, "nbd[9]@host9");
  open(holder, 2);
  auto id = post(client_, ask_it);
  run(seconds(2));
  heartbeat(holder, 2);
  run(seconds(2));
  auto reply = answer(client_, id);
  EXPECT_EQ(status(reply), Errc::timed_out);
  EXPECT_NE(reply.text().find("nbd[9]@host9"), std::string::npos) << reply.text();
  id = post(client_, ask_it);
  disconnect(holder);
  run(milliseconds(200));
  reply = answer(client_, id);
  EXPECT_EQ(status(reply), Errc::timed_out);
  EXPECT_NE(reply.text().find("went away"), std::string::npos) << reply.text();
}

}  // namespace
}  // namespace pstorage::mds
