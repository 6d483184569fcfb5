#include "tests/mds/state_fixture.h"

namespace pstorage::mds {
namespace {

class Lease : public State_fixture {
 protected:
  Lease() {
    open_session(1, "nbd[1]@host1");
    open_session(2, "nbd[2]@host2");
    for (int i = 0; i < 4; ++i) servers_.push_back(add_server(1));
    EXPECT_EQ(create(1, "/volumes/vm1", 1ull << 30, 3, 2).status(), 0u);
  }
  proto::Mds_reply open_shared(std::uint64_t session) {
    proto::Mds_request request;
    request.mutable_open_file()->set_path("/volumes/vm1");
    request.mutable_open_file()->set_shared(true);
    return ask(session, std::move(request));
  }
  std::vector<std::uint32_t> servers_;
};

TEST_F(Lease, A_second_opener_is_told_who_holds_the_file_and_where) {
  std::uint64_t file = 0;
  lease(1, "/volumes/vm1", file);
  auto const reply = open_file(2, "/volumes/vm1");
  EXPECT_EQ(status(reply), Errc::busy);
  EXPECT_NE(reply.text().find("nbd[1]@host1 on host 00000000000000ab"), std::string::npos)
      << reply.text();
}

TEST_F(Lease, Epochs_grow_with_every_grant_of_any_file) {
  EXPECT_EQ(create(1, "/volumes/vm2", 1 << 20).status(), 0u);
  auto const first = open_file(1, "/volumes/vm1").lease().epoch();
  auto const second = open_file(1, "/volumes/vm2").lease().epoch();
  auto const third = open_file(1, "/volumes/vm1").lease().epoch();
  EXPECT_LT(first, second);
  EXPECT_LT(second, third);
}

TEST_F(Lease, Force_takes_over_and_the_old_holder_hears_of_it) {
  std::uint64_t file = 0;
  auto const old = lease(1, "/volumes/vm1", file);
  effects_ = {};
  auto const taken = open_file(2, "/volumes/vm1", true);
  EXPECT_EQ(taken.status(), 0u);
  EXPECT_GT(taken.lease().epoch(), old);
  EXPECT_NE(taken.lease().previous_holder().find("nbd[1]@host1"), std::string::npos);
  ASSERT_EQ(effects_.lost_leases.size(), 1u);
  EXPECT_EQ(effects_.lost_leases[0].session.value, 1u);
  EXPECT_EQ(effects_.lost_leases[0].epoch.value, old);
  EXPECT_TRUE(has_event("taken over"));
  EXPECT_EQ(status(allocate(1, file, old, {0})), Errc::stale_epoch);
  EXPECT_EQ(status(close_file(1, file, old)), Errc::stale_epoch);
}

TEST_F(Lease, A_dead_session_gives_way_without_force) {
  std::uint64_t file = 0;
  lease(1, "/volumes/vm1", file);
  EXPECT_EQ(expire(1).status(), 0u);
  EXPECT_TRUE(has_event("has not been heard of"));
  EXPECT_EQ(open_file(2, "/volumes/vm1").status(), 0u);
  EXPECT_EQ(status(allocate(1, file, 1, {0})), Errc::session_expired);
}

TEST_F(Lease, Nothing_is_allocated_before_the_seal_is_finished) {
  auto const opened = open_file(1, "/volumes/vm1").lease();
  EXPECT_EQ(status(allocate(1, opened.file().id(), opened.epoch(), {0})), Errc::refused);
  EXPECT_EQ(finish_seal(1, opened.file().id(), opened.epoch()).status(), 0u);
  EXPECT_EQ(allocate(1, opened.file().id(), opened.epoch(), {0}).status(), 0u);
}

TEST_F(Lease, Take_over_drops_unreachable_replicas_under_new_versions) {
  std::uint64_t file = 0;
  auto const old = lease(1, "/volumes/vm1", file);
  auto const chunk = allocate(1, file, old, {0}).map().chunks(0);
  ASSERT_EQ(chunk.replicas_size(), 3);
  auto const opened = open_file(2, "/volumes/vm1", true).lease();
  auto const lost = chunk.replicas(0).cs();
  auto const sealed = finish_seal(2, file, opened.epoch(), {lost});
  ASSERT_EQ(sealed.map().chunks_size(), 1);
  EXPECT_EQ(sealed.map().chunks(0).version(), chunk.version() + 1);
  EXPECT_EQ(sealed.map().chunks(0).replicas_size(), 2);
  EXPECT_EQ(replica_state(chunk.chunk(), lost), proto::REPLICA_STALE);
}

TEST_F(Lease, Take_over_never_drops_the_last_in_sync_replica) {
  std::uint64_t file = 0;
  auto const old = lease(1, "/volumes/vm1", file);
  auto const chunk = allocate(1, file, old, {0}).map().chunks(0);
  auto const opened = open_file(2, "/volumes/vm1", true).lease();
  std::vector<std::uint32_t> all;
  for (auto const& replica : chunk.replicas()) all.push_back(replica.cs());
  auto const sealed = finish_seal(2, file, opened.epoch(), all);
  EXPECT_EQ(sealed.status(), 0u);
  EXPECT_EQ(sealed.map().chunks_size(), 0);
  EXPECT_EQ(version_of(chunk.chunk()), chunk.version());
}

TEST_F(Lease, A_clean_close_leaves_no_trace_but_an_unfenced_one_does) {
  auto const leases = [this] {
    return machine_->database().number("SELECT count(*) FROM lease", 99);
  };
  std::uint64_t file = 0;
  auto const first = lease(1, "/volumes/vm1", file);
  allocate(1, file, first, {0});
  EXPECT_EQ(close_file(1, file, first).status(), 0u);
  EXPECT_EQ(leases(), 0u);
  // The next holder vanishes; whoever follows and closes before the seal has fenced nobody.
  lease(1, "/volumes/vm1", file);
  expire(1);
  auto const unsealed = open_file(2, "/volumes/vm1").lease();
  EXPECT_EQ(close_file(2, file, unsealed.epoch()).status(), 0u);
  EXPECT_EQ(leases(), 1u);
  auto const sealed = lease(2, "/volumes/vm1", file);
  EXPECT_EQ(close_file(2, file, sealed).status(), 0u);
  EXPECT_EQ(leases(), 0u);
}

TEST_F(Lease, A_file_closed_with_replicas_that_may_differ_is_not_shared_before_its_next_writer) {
  std::uint64_t file = 0;
  lease(1, "/volumes/vm1", file);
  expire(1);
  auto const second = lease(2, "/volumes/vm1", file);
  EXPECT_EQ(close_file(2, file, second, true).status(), 0u);
  EXPECT_EQ(status(open_shared(2)), Errc::refused);
  EXPECT_FALSE(open_file(2, "/volumes/vm1").lease().clean());
  auto const third = lease(2, "/volumes/vm1", file);
  EXPECT_EQ(close_file(2, file, third).status(), 0u);
  EXPECT_EQ(status(open_shared(2)), Errc::ok);
}

TEST_F(Lease, Close_session_gives_all_leases_back_but_says_nothing_of_their_files) {
  std::uint64_t file = 0;
  lease(1, "/volumes/vm1", file);
  proto::Mds_request request;
  request.mutable_close_session();
  EXPECT_EQ(ask(1, request).status(), 0u);
  EXPECT_EQ(status(open_shared(2)), Errc::refused);
  EXPECT_EQ(open_file(2, "/volumes/vm1").status(), 0u);
}

TEST_F(Lease, Revoke_ends_a_lease_and_stales_its_epoch) {
  std::uint64_t file = 0;
  auto const epoch = lease(1, "/volumes/vm1", file);
  proto::Mds_request request;
  request.mutable_revoke()->set_path("/volumes/vm1");
  EXPECT_EQ(ask(2, request).status(), 0u);
  EXPECT_EQ(status(allocate(1, file, epoch, {0})), Errc::stale_epoch);
  EXPECT_EQ(open_file(2, "/volumes/vm1").status(), 0u);
  EXPECT_EQ(status(ask(1, request)), Errc::ok);
  EXPECT_EQ(status(ask(1, request)), Errc::not_found);
}

TEST_F(Lease, A_leased_file_is_neither_removed_nor_shrunk_by_others) {
  std::uint64_t file = 0;
  lease(1, "/volumes/vm1", file);
  EXPECT_EQ(status(remove(2, "/volumes/vm1")), Errc::busy);
  proto::Mds_request request;
  request.mutable_resize()->set_path("/volumes/vm1");
  request.mutable_resize()->set_size(4096);
  request.mutable_resize()->set_allow_shrink(true);
  EXPECT_EQ(status(ask(2, request)), Errc::busy);
  EXPECT_EQ(status(ask(1, request)), Errc::ok);
}

TEST_F(Lease, Readers_share_the_epoch_of_the_last_writer_until_there_is_another) {
  auto const read = [this](std::uint64_t session) {
    proto::Mds_request request;
    request.mutable_open_file()->set_path("/volumes/vm1");
    request.mutable_open_file()->set_read_only(true);
    return ask(session, request);
  };
  auto const fresh = read(1).lease().epoch();  // nobody has ever written it
  EXPECT_NE(fresh, 0u);
  EXPECT_EQ(read(2).lease().epoch(), fresh);
  std::uint64_t file = 0;
  auto const unsealed = open_file(1, "/volumes/vm1");
  EXPECT_EQ(status(read(2)), Errc::busy);
  auto const epoch = lease(1, "/volumes/vm1", file);
  EXPECT_GT(unsealed.lease().epoch(), fresh);
  EXPECT_EQ(read(2).lease().epoch(), epoch);
  EXPECT_TRUE(read(2).lease().is_live());
  EXPECT_EQ(close_file(1, file, epoch).status(), 0u);
  EXPECT_EQ(read(2).lease().epoch(), epoch);
  EXPECT_FALSE(read(2).lease().is_live());
  lease(1, "/volumes/vm1", file);
  expire(1);
  EXPECT_EQ(status(read(2)), Errc::refused);  // may be in pieces: opened for writing first
  remove(2, "/volumes/vm1");
  EXPECT_EQ(machine_->database().number("SELECT count(*) FROM reading", 9), 0u);
}

TEST_F(Lease, A_guarded_command_fails_with_the_lease_it_relies_on) {
  create(1, "/volumes/other", 4096);
  std::uint64_t file = 0;
  auto const epoch = lease(1, "/volumes/vm1", file);
  proto::Mds_request request;
  request.mutable_rename()->set_from("/volumes/other");
  request.mutable_rename()->set_to("/volumes/new");
  request.mutable_guard()->set_file(file);
  request.mutable_guard()->set_epoch(epoch + 1);
  EXPECT_EQ(status(ask(1, request)), Errc::stale_epoch);
  request.mutable_guard()->set_epoch(epoch);
  EXPECT_EQ(status(ask(2, request)), Errc::stale_epoch);
  EXPECT_EQ(status(ask(1, request)), Errc::ok);
}

TEST_F(Lease, A_file_is_resized_by_its_id_under_any_name) {
  std::uint64_t file = 0;
  lease(1, "/volumes/vm1", file);
  rename(1, "/volumes/vm1", "/volumes/vm2");
  proto::Mds_request request;
  request.mutable_resize()->set_file(file);
  request.mutable_resize()->set_size(8192);
  request.mutable_resize()->set_allow_shrink(true);
  EXPECT_EQ(ask(1, request).file().size(), 8192u);
  request.mutable_resize()->set_file(999);
  EXPECT_EQ(status(ask(1, request)), Errc::not_found);
}

TEST_F(Lease, Whoever_wants_a_frozen_file_gets_no_link_to_one_being_written) {
  std::uint64_t file = 0;
  auto const epoch = lease(1, "/volumes/vm1", file);
  proto::Mds_request request;
  request.mutable_link()->set_from("/volumes/vm1");
  request.mutable_link()->set_to("/volumes/link");
  request.mutable_link()->set_not_leased(true);
  EXPECT_EQ(status(ask(2, request)), Errc::busy);
  close_file(1, file, epoch);
  EXPECT_EQ(status(ask(2, request)), Errc::ok);
}

}  // namespace
}  // namespace pstorage::mds
