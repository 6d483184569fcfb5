// Files whose last writer left without closing them: what a lease to make that good is, and when
// the leader asks a chunk server for it.
#include <gtest/gtest.h>

#include "tests/mds/server_fixture.h"
#include "tests/mds/state_fixture.h"

namespace pstorage::mds {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class Settling : public State_fixture {
 protected:
  Settling() {
    open_session(1, "nbd[1]@host1");
    open_session(2, "nbd[2]@host2");
    open_session(3, "csd[1025]@host3");
    for (int i = 0; i < 3; ++i) add_server(1);
    EXPECT_EQ(create(1, "/volumes/vm1", 1ull << 30, 3, 2).status(), 0u);
  }
  proto::Mds_reply open_to_settle() {
    proto::Mds_request request;
    request.mutable_open_file()->set_path("/volumes/vm1");
    request.mutable_open_file()->set_settle(true);
    return ask(3, std::move(request));
  }
  /// The file's id; its writer is gone.
  std::uint64_t orphan() {
    std::uint64_t file = 0;
    lease(1, "/volumes/vm1", file);
    EXPECT_EQ(expire(1).status(), 0u);
    return file;
  }
  /// Session 3 has taken the file over and could close it now; its epoch.
  std::uint32_t settle(std::uint64_t file) {
    auto const opened = open_to_settle();
    EXPECT_EQ(opened.status(), 0u) << opened.text();
    EXPECT_EQ(finish_seal(3, file, opened.lease().epoch()).status(), 0u);
    return opened.lease().epoch();
  }
};

TEST_F(Settling, A_file_in_use_or_closed_in_order_is_not_settled) {
  std::uint64_t file = 0;
  auto const epoch = lease(1, "/volumes/vm1", file);
  EXPECT_EQ(status(open_to_settle()), Errc::busy);
  EXPECT_EQ(close_file(1, file, epoch).status(), 0u);
  EXPECT_EQ(status(open_to_settle()), Errc::refused);
}

TEST_F(Settling, Its_close_ends_the_orphan) {
  auto const file = orphan();
  EXPECT_EQ(close_file(3, file, settle(file)).status(), 0u);
  EXPECT_FALSE(load_lease(machine_->database(), File_id{file}).has_value());
  EXPECT_TRUE(open_file(2, "/volumes/vm1").lease().clean());
}

TEST_F(Settling, Anybody_opens_the_file_meanwhile_without_force) {
  auto const file = orphan();
  auto const epoch = settle(file);
  effects_ = {};
  auto const opened = open_file(2, "/volumes/vm1");
  EXPECT_EQ(opened.status(), 0u) << opened.text();
  EXPECT_FALSE(opened.lease().clean());
  EXPECT_EQ(opened.lease().previous_sessions_size(),
            0);  // it serves nobody: no need to wait for it
  ASSERT_EQ(effects_.lost_leases.size(), 1u);
  EXPECT_EQ(effects_.lost_leases[0].session.value, 3u);
  EXPECT_EQ(status(close_file(3, file, epoch)), Errc::stale_epoch);
  EXPECT_EQ(status(open_to_settle()), Errc::busy);
}

TEST_F(Settling, The_file_counts_as_unused) {
  auto const file = orphan();
  settle(file);
  EXPECT_FALSE(is_in_use(machine_->database(), File_id{file}));
  proto::Mds_request revoke;
  revoke.mutable_revoke()->set_path("/volumes/vm1");
  EXPECT_EQ(status(ask(2, std::move(revoke))), Errc::not_found);
  proto::Mds_request shared;
  shared.mutable_open_file()->set_path("/volumes/vm1");
  shared.mutable_open_file()->set_shared(true);
  EXPECT_EQ(status(ask(2, std::move(shared))), Errc::refused);  // to be closed by a writer first
  EXPECT_EQ(remove(2, "/volumes/vm1").status(), 0u);
  EXPECT_FALSE(load_inode(machine_->database(), File_id{file}).has_value());
}

TEST_F(Settling, If_its_session_ends_the_file_is_an_orphan_again) {
  auto const file = orphan();
  settle(file);
  EXPECT_EQ(expire(3).status(), 0u);
  auto const row = load_lease(machine_->database(), File_id{file});
  ASSERT_TRUE(row.has_value());
  EXPECT_FALSE(row->session);
  EXPECT_FALSE(row->settling);
  EXPECT_FALSE(row->fenced);
}

class Orphan_server : public Server_fixture {
 protected:
  void SetUp() override {
    start();
    client_ = connect(Role::client);
    open_session(client_, 1);
    for (int i = 0; i < 2; ++i) servers_.push_back(add_server(client_, 1));
    file_ = create(client_, 1, "/file", 2).file().id();
    proto::Mds_request open;
    open.mutable_open_file()->set_path("/file");
    auto const lease = command(client_, 1, open).lease();
    proto::Mds_request seal;
    seal.mutable_finish_seal()->set_file(file_);
    seal.mutable_finish_seal()->set_epoch(lease.epoch());
    EXPECT_EQ(command(client_, 1, seal).status(), 0u);
    proto::Mds_request allocate;
    allocate.mutable_allocate()->set_file(file_);
    allocate.mutable_allocate()->set_epoch(lease.epoch());
    allocate.mutable_allocate()->add_indexes(0);
    EXPECT_EQ(command(client_, 1, allocate).status(), 0u);
  }
  /// The holder is silent; the servers in `alive` are not. How often one of them was asked.
  int live(Duration duration, std::size_t alive = 2) {
    int asked = 0;
    auto const end = queue_.now() + duration;
    while (queue_.now() < end) {
      for (std::size_t i = 0; i < alive; ++i) cs_heartbeat(servers_[i]);
      run(milliseconds(500));
      for (auto const& cs : servers_) {
        for (auto const& push : take_pushes(cs.connection)) {
          for (auto const file : push.settle_files().files()) asked += file == file_ ? 1 : 0;
        }
      }
    }
    return asked;
  }

  Connection_id client_;
  std::vector<Played_cs> servers_;
  std::uint64_t file_ = 0;
};

TEST_F(Orphan_server, A_server_is_asked_to_settle_it_once_its_user_has_not_come_back) {
  EXPECT_EQ(live(seconds(35)), 0);  // 10 s for the session, and 30 s
  EXPECT_EQ(live(seconds(10)), 1);
  EXPECT_EQ(live(seconds(45)), 0);  // time to do it
  EXPECT_EQ(live(seconds(30)), 1);
}

TEST_F(Orphan_server, Nobody_is_asked_while_a_server_that_has_a_replica_is_away) {
  EXPECT_EQ(live(seconds(90), 1), 0);
  EXPECT_EQ(attach(servers_[1]).status(), 0u);
  EXPECT_EQ(live(seconds(15)), 1);
}

TEST_F(Orphan_server, Nobody_is_asked_when_somebody_has_opened_it) {
  live(seconds(20));
  auto const other = connect(Role::client);
  open_session(other, 2);
  proto::Mds_request open;
  open.mutable_open_file()->set_path("/file");
  EXPECT_EQ(command(other, 2, open).status(), 0u);
  int asked = 0;
  for (int i = 0; i < 15; ++i) {
    heartbeat(other, 2, {file_});
    asked += live(seconds(4));
  }
  EXPECT_EQ(asked, 0);
}

}  // namespace
}  // namespace pstorage::mds
