#include <set>

#include "mds/state/chunks.h"
#include "tests/mds/state_fixture.h"

namespace pstorage::mds {
namespace {

class Chunks : public State_fixture {
 protected:
  Chunks() {
    open_session(1);
    for (int i = 0; i < 4; ++i) servers_.push_back(add_server(1));
    create(1, "/volumes/vm1", 1ull << 30, 3, 2);
    epoch_ = lease(1, "/volumes/vm1", file_);
    chunk_ = allocate(1, file_, epoch_, {0}).map().chunks(0);
  }
  std::uint32_t member(int index) const { return chunk_.replicas(index).cs(); }
  std::uint32_t outsider() const {
    std::set<std::uint32_t> members;
    for (auto const& replica : chunk_.replicas()) members.insert(replica.cs());
    for (auto const cs : servers_) {
      if (!members.contains(cs)) return cs;
    }
    return 0;
  }
  int chunk_state() {
    return static_cast<int>(
        machine_->database().number("SELECT state FROM chunk WHERE id = ?", 99, chunk_.chunk()));
  }
  proto::Chunk present() {
    auto chunk = chunk_;
    chunk.set_version(version_of(chunk_.chunk()));
    return chunk;
  }

  std::vector<std::uint32_t> servers_;
  std::uint64_t file_ = 0;
  std::uint32_t epoch_ = 0;
  proto::Chunk chunk_;
};

TEST_F(Chunks, Allocation_is_in_sync_everywhere_at_version_1_and_idempotent_by_index) {
  EXPECT_EQ(chunk_.version(), 1u);
  EXPECT_EQ(chunk_.replicas_size(), 3);
  auto const again = allocate(1, file_, epoch_, {0, 1});
  ASSERT_EQ(again.map().chunks_size(), 2);
  EXPECT_EQ(again.map().chunks(0).chunk(), chunk_.chunk());
  EXPECT_NE(again.map().chunks(1).chunk(), chunk_.chunk());
  EXPECT_GE(again.map().servers_size(), 3);
  EXPECT_TRUE(again.map().servers(0).alive());
}

TEST_F(Chunks, Allocation_behind_the_end_of_the_file_is_refused) {
  EXPECT_EQ(status(allocate(1, file_, epoch_, {16})), Errc::bad_request);
  EXPECT_EQ(allocate(1, file_, epoch_, {15}).status(), 0u);
}

TEST_F(Chunks, Fewer_servers_than_norm_give_a_degraded_chunk_fewer_than_min_none) {
  set_cs_state(servers_[0], "inactive");
  set_cs_state(servers_[1], "inactive");
  auto const degraded = allocate(1, file_, epoch_, {1});
  ASSERT_EQ(degraded.status(), 0u);
  EXPECT_EQ(degraded.map().chunks(0).replicas_size(), 2);
  set_cs_state(servers_[2], "inactive");
  auto const refused = allocate(1, file_, epoch_, {2, 3});
  EXPECT_EQ(status(refused), Errc::no_placement);
  EXPECT_NE(refused.text().find("needs 2 active chunk servers on different hosts"),
            std::string::npos)
      << refused.text();
  EXPECT_EQ(machine_->database().number("SELECT count(*) FROM chunk", 9), 2u);
}

TEST_F(Chunks, A_reported_replica_becomes_stale_under_the_next_version) {
  auto const reply = report_failed(1, file_, epoch_, chunk_, {member(0)});
  EXPECT_EQ(reply.map().chunks(0).version(), 2u);
  EXPECT_EQ(reply.map().chunks(0).replicas_size(), 2);
  EXPECT_EQ(replica_state(chunk_.chunk(), member(0)), proto::REPLICA_STALE);
  EXPECT_EQ(chunk_state(), static_cast<int>(Chunk_state::urgent));
  EXPECT_TRUE(has_event("1 chunk of '/volumes/vm1' without CS#"));
}

TEST_F(Chunks, A_report_about_another_version_changes_nothing_and_answers_the_present_set) {
  report_failed(1, file_, epoch_, chunk_, {member(0)});
  auto const late = report_failed(1, file_, epoch_, chunk_, {member(1)});
  EXPECT_EQ(late.status(), 0u);
  EXPECT_EQ(late.map().chunks(0).version(), 2u);
  EXPECT_EQ(late.map().chunks(0).replicas_size(), 2);
}

TEST_F(Chunks, The_last_in_sync_replica_is_never_dropped) {
  report_failed(1, file_, epoch_, chunk_, {member(0), member(1)});
  EXPECT_EQ(chunk_state(), static_cast<int>(Chunk_state::blocked));
  auto const reply = report_failed(1, file_, epoch_, present(), {member(2)});
  EXPECT_EQ(reply.status(), 0u);
  EXPECT_EQ(reply.map().chunks(0).version(), 2u);
  EXPECT_EQ(replica_state(chunk_.chunk(), member(2)), proto::REPLICA_IN_SYNC);
}

TEST_F(Chunks, When_all_are_reported_all_in_sync_ones_stay) {
  auto const reply = report_failed(1, file_, epoch_, chunk_, {member(0), member(1), member(2)});
  EXPECT_EQ(reply.map().chunks(0).version(), 1u);
  EXPECT_EQ(reply.map().chunks(0).replicas_size(), 3);
}

TEST_F(Chunks, Only_the_lease_holder_may_report) {
  open_session(2);
  EXPECT_EQ(status(report_failed(2, file_, epoch_, chunk_, {member(0)})), Errc::stale_epoch);
  EXPECT_EQ(status(report_failed(1, file_, epoch_ + 1, chunk_, {member(0)})), Errc::stale_epoch);
  auto foreign = chunk_;
  foreign.set_chunk(9999);
  EXPECT_EQ(status(report_failed(1, file_, epoch_, foreign, {member(0)})), Errc::not_found);
}

TEST_F(Chunks, A_stale_replica_is_synced_and_counts_again) {
  report_failed(1, file_, epoch_, chunk_, {member(0)});
  effects_ = {};
  start_sync(present(), member(0));
  EXPECT_EQ(version_of(chunk_.chunk()), 3u);
  EXPECT_EQ(effects_.sync_orders.size(), 1u);
  EXPECT_EQ(effects_.map_changes.size(), 1u);
  EXPECT_EQ(status(sync_done(1, chunk_.chunk(), 2, member(0), epoch_)), Errc::stale_version);
  EXPECT_EQ(status(sync_done(1, chunk_.chunk(), 3, member(0), 0)), Errc::stale_epoch);
  EXPECT_EQ(sync_done(1, chunk_.chunk(), 3, member(0), epoch_).status(), 0u);
  EXPECT_EQ(replica_state(chunk_.chunk(), member(0)), proto::REPLICA_IN_SYNC);
  EXPECT_EQ(version_of(chunk_.chunk()), 4u);
  EXPECT_EQ(chunk_state(), static_cast<int>(Chunk_state::healthy));
}

TEST_F(Chunks, Without_any_lease_a_sync_needs_no_writer) {
  report_failed(1, file_, epoch_, chunk_, {member(0)});
  close_file(1, file_, epoch_);
  start_sync(present(), member(0));
  EXPECT_EQ(sync_done(1, chunk_.chunk(), 3, member(0), 0).status(), 0u);
}

TEST_F(Chunks, After_a_vanished_writer_no_sync_is_complete_until_somebody_has_fenced_it) {
  report_failed(1, file_, epoch_, chunk_, {member(0)});
  start_sync(present(), member(0));
  expire(1);
  open_session(2);
  EXPECT_EQ(status(sync_done(2, chunk_.chunk(), 3, member(0), 0)), Errc::stale_epoch);
  auto const epoch = lease(2, "/volumes/vm1", file_);
  close_file(2, file_, epoch);
  EXPECT_EQ(sync_done(2, chunk_.chunk(), 3, member(0), 0).status(), 0u);
}

TEST_F(Chunks, A_sync_that_gives_up_leaves_a_stale_replica) {
  report_failed(1, file_, epoch_, chunk_, {member(0)});
  start_sync(present(), member(0));
  EXPECT_EQ(sync_done(1, chunk_.chunk(), 3, member(0), 0, true).status(), 0u);
  EXPECT_EQ(replica_state(chunk_.chunk(), member(0)), proto::REPLICA_STALE);
  EXPECT_TRUE(has_event("gave up the replication"));
}

TEST_F(Chunks, A_new_server_replaces_a_stale_one_whose_copy_becomes_garbage) {
  report_failed(1, file_, epoch_, chunk_, {member(0)});
  effects_ = {};
  start_sync(present(), outsider());
  EXPECT_EQ(sync_done(1, chunk_.chunk(), 3, outsider(), epoch_).status(), 0u);
  EXPECT_EQ(replica_state(chunk_.chunk(), member(0)), -1);
  EXPECT_EQ(machine_->database().number("SELECT cs FROM garbage", 0), member(0));
  EXPECT_TRUE(effects_.garbage.contains(Cs_id{member(0)}));
  // While the old copy may still have to be deleted, no new one may be begun beside it.
  report_failed(1, file_, epoch_, present(), {outsider()});
  auto const version = version_of(chunk_.chunk());
  start_sync(present(), member(0));
  EXPECT_EQ(version_of(chunk_.chunk()), version);
  proto::Mds_request deleted;
  deleted.mutable_deleted_chunks()->set_cs(member(0));
  deleted.mutable_deleted_chunks()->add_chunks(chunk_.chunk());
  EXPECT_EQ(ask(1, deleted).status(), 0u);
  start_sync(present(), member(0));
  EXPECT_EQ(version_of(chunk_.chunk()), version + 1);
}

TEST_F(Chunks, A_server_that_comes_back_as_another_process_forgets_its_syncs) {
  report_failed(1, file_, epoch_, chunk_, {member(0)});
  start_sync(present(), member(0));
  auto const host = machine_->database().number("SELECT host FROM cs WHERE id = ?", 0, member(0));
  EXPECT_EQ(register_server(1, member(0), host, 1).status(), 0u);
  EXPECT_EQ(replica_state(chunk_.chunk(), member(0)), proto::REPLICA_SYNCING);
  EXPECT_EQ(register_server(1, member(0), host, 2).status(), 0u);
  EXPECT_EQ(replica_state(chunk_.chunk(), member(0)), proto::REPLICA_STALE);
  EXPECT_EQ(version_of(chunk_.chunk()), 4u);
}

TEST_F(Chunks, Replicas_of_offline_servers_are_dropped_only_beside_another) {
  close_file(1, file_, epoch_);
  auto const drop = [this](std::uint32_t cs) {
    proto::Mds_request request;
    auto& one = *request.mutable_drop_offline()->add_chunks();
    one.set_chunk(chunk_.chunk());
    one.set_version(version_of(chunk_.chunk()));
    one.set_cs(cs);
    own(std::move(request));
  };
  drop(member(0));  // it is active
  EXPECT_EQ(version_of(chunk_.chunk()), 1u);
  for (int i = 0; i < 3; ++i) {
    set_cs_state(member(i), "inactive");
    set_cs_state(member(i), "offline");
    drop(member(i));
  }
  EXPECT_EQ(version_of(chunk_.chunk()), 3u);
  EXPECT_EQ(replica_state(chunk_.chunk(), member(2)), proto::REPLICA_IN_SYNC);
}

TEST_F(Chunks, Freed_chunks_become_garbage_and_their_ids_are_never_used_again) {
  proto::Mds_request request;
  request.mutable_free_chunks()->set_file(file_);
  request.mutable_free_chunks()->set_epoch(epoch_);
  request.mutable_free_chunks()->add_indexes(0);
  EXPECT_EQ(ask(1, request).status(), 0u);
  EXPECT_EQ(machine_->database().number("SELECT count(*) FROM garbage", 9), 3u);
  EXPECT_GT(allocate(1, file_, epoch_, {0}).map().chunks(0).chunk(), chunk_.chunk());
}

TEST_F(Chunks, A_changed_norm_changes_how_chunks_stand) {
  proto::Mds_request request;
  request.mutable_set_attributes()->set_path("/volumes/vm1");
  request.mutable_set_attributes()->mutable_attributes()->set_replicas_norm(4);
  request.mutable_set_attributes()->mutable_attributes()->set_replicas_min(2);
  EXPECT_EQ(ask(1, request).status(), 0u);
  EXPECT_EQ(chunk_state(), static_cast<int>(Chunk_state::degraded));
  request.mutable_set_attributes()->mutable_attributes()->set_replicas_norm(2);
  EXPECT_EQ(ask(1, request).status(), 0u);
  EXPECT_EQ(chunk_state(), static_cast<int>(Chunk_state::overcommitted));
}

}  // namespace
}  // namespace pstorage::mds
