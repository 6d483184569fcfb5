// rm-cs, surplus replicas and what may never be removed: the state machine's side.
#include "mds/state/chunks.h"
#include "tests/mds/state_fixture.h"

namespace pstorage::mds {
namespace {

class Healing_state : public State_fixture {
 protected:
  void SetUp() override {
    open_session(1);
    open_session(2, "csd");
  }
  /// A file with one chunk of `norm` replicas.
  proto::Chunk make_chunk(std::uint32_t norm, std::uint32_t min) {
    create(1, "/v", 64u << 20, norm, min);
    epoch_ = lease(1, "/v", file_);
    auto const allocated = allocate(1, file_, epoch_, {0});
    EXPECT_EQ(allocated.status(), 0u) << allocated.text();
    return allocated.map().chunks(0);
  }
  proto::Mds_reply release(std::uint32_t cs, bool forced = false, bool cancel = false) {
    proto::Mds_request request;
    request.mutable_release_cs()->set_cs(cs);
    request.mutable_release_cs()->set_forced(forced);
    request.mutable_release_cs()->set_cancel(cancel);
    return ask(1, std::move(request));
  }
  void remove_replica(std::uint64_t chunk, std::uint32_t version, std::uint32_t cs) {
    proto::Mds_request request;
    auto& one = *request.mutable_remove_replicas()->add_chunks();
    one.set_chunk(chunk);
    one.set_version(version);
    one.add_servers(cs);
    own(std::move(request));
  }
  void drop(std::uint32_t cs) {
    proto::Mds_request request;
    request.mutable_drop_cs()->set_cs(cs);
    own(std::move(request));
  }
  proto::Mds_reply set_attributes(proto::Attributes const& attributes, bool recursive = false,
                                  std::string const& path = "/v") {
    proto::Mds_request request;
    request.mutable_set_attributes()->set_path(path);
    *request.mutable_set_attributes()->mutable_attributes() = attributes;
    request.mutable_set_attributes()->set_recursive(recursive);
    return ask(1, std::move(request));
  }
  Chunk_state stored_state(std::uint64_t chunk) {
    return static_cast<Chunk_state>(
        machine_->database().number("SELECT state FROM chunk WHERE id = ?", 99, chunk));
  }
  bool is_dropped(std::uint32_t cs) {
    return machine_->database().number("SELECT 1 FROM cs WHERE id = ? AND state = 'dropped'", 0,
                                       cs) != 0;
  }
  /// Syncs `chunk` onto `cs` under the lease.
  void sync_onto(std::uint64_t chunk, std::uint32_t cs) {
    proto::Chunk one;
    one.set_chunk(chunk);
    one.set_version(version_of(chunk));
    start_sync(one, cs);
    auto const done = sync_done(2, chunk, version_of(chunk), cs, epoch_);
    ASSERT_EQ(done.status(), 0u) << done.text();
  }

  std::uint64_t file_ = 0;
  std::uint32_t epoch_ = 0;
};

TEST_F(Healing_state, A_server_that_is_needed_for_the_norm_is_not_released) {
  auto const a = add_server(2);
  add_server(2);
  make_chunk(2, 1);
  auto const refused = release(a);
  EXPECT_EQ(status(refused), Errc::no_placement);
  EXPECT_NE(refused.text().find("2 replicas on different hosts and only 1 would remain"),
            std::string::npos)
      << refused.text();
  add_server(2);
  EXPECT_EQ(release(a).status(), 0u);
}

TEST_F(Healing_state, Without_room_for_its_chunks_a_server_is_not_released) {
  auto const a = add_server(2);
  auto const b = add_server(2);
  auto const c = add_server(2);
  make_chunk(2, 1);
  proto::Mds_request request;
  request.mutable_release_cs()->set_cs(a);
  request.set_session(1);
  request.set_sequence(++sequences_[1]);
  auto entry = entry_of(request);
  for (auto const cs : {a, b, c}) {
    auto& space = *entry.add_space();
    space.set_cs(cs);
    space.set_total_bytes(100ull << 30);
    space.set_free_bytes(1ull << 30);
  }
  auto const refused = apply(entry);
  EXPECT_EQ(status(refused), Errc::no_space) << refused.text();
}

TEST_F(Healing_state, A_silent_server_with_the_last_replica_is_released_only_by_force) {
  auto const a = add_server(2);
  auto const chunk = make_chunk(1, 1);
  add_server(2);
  set_cs_state(a, "inactive");
  EXPECT_EQ(status(release(a)), Errc::refused);
  EXPECT_EQ(release(a, true).status(), 0u);
  remove_replica(chunk.chunk(), version_of(chunk.chunk()), a);
  EXPECT_EQ(replica_state(chunk.chunk(), a), proto::REPLICA_IN_SYNC);  // nobody else has it
  drop(a);
  EXPECT_TRUE(is_dropped(a));
  EXPECT_TRUE(has_event("1 chunk had the only up-to-date replica there and cannot be read"));
  // It is still in the map: reads wait instead of finding zeros.
  EXPECT_EQ(replica_state(chunk.chunk(), a), proto::REPLICA_IN_SYNC);
}

TEST_F(Healing_state, An_active_server_is_not_dropped_by_force) {
  auto const a = add_server(2);
  EXPECT_EQ(status(release(a, true)), Errc::refused);
}

TEST_F(Healing_state, A_releasing_server_takes_no_new_replicas_and_can_stay_after_all) {
  auto const a = add_server(2);
  auto const b = add_server(2);
  ASSERT_EQ(release(a).status(), 0u);
  auto const chunk = make_chunk(1, 1);
  EXPECT_EQ(replica_state(chunk.chunk(), a), -1);
  EXPECT_EQ(replica_state(chunk.chunk(), b), proto::REPLICA_IN_SYNC);
  start_sync(chunk, a);
  EXPECT_EQ(replica_state(chunk.chunk(), a), -1);
  EXPECT_EQ(release(a, false, true).status(), 0u);
  start_sync(chunk, a);
  EXPECT_EQ(replica_state(chunk.chunk(), a), proto::REPLICA_SYNCING);
  EXPECT_EQ(status(release(a, false, true)), Errc::refused);
}

TEST_F(Healing_state, A_replica_is_removed_only_when_enough_others_are_in_sync_and_active) {
  auto const a = add_server(2);
  auto const b = add_server(2);
  auto const chunk = make_chunk(2, 1);
  auto const c = add_server(2);
  remove_replica(chunk.chunk(), version_of(chunk.chunk()), a);
  EXPECT_EQ(replica_state(chunk.chunk(), a), proto::REPLICA_IN_SYNC);
  sync_onto(chunk.chunk(), c);
  EXPECT_EQ(stored_state(chunk.chunk()), Chunk_state::overcommitted);
  set_cs_state(c, "inactive");
  remove_replica(chunk.chunk(), version_of(chunk.chunk()), a);
  EXPECT_EQ(replica_state(chunk.chunk(), a), proto::REPLICA_IN_SYNC);  // c may be gone
  set_cs_state(c, "active");
  remove_replica(chunk.chunk(), version_of(chunk.chunk()) - 1, a);
  EXPECT_EQ(replica_state(chunk.chunk(), a), proto::REPLICA_IN_SYNC);  // another version
  remove_replica(chunk.chunk(), version_of(chunk.chunk()), a);
  EXPECT_EQ(replica_state(chunk.chunk(), a), -1);
  EXPECT_EQ(replica_state(chunk.chunk(), b), proto::REPLICA_IN_SYNC);
  EXPECT_EQ(stored_state(chunk.chunk()), Chunk_state::healthy);
  EXPECT_TRUE(effects_.garbage.contains(Cs_id{a}));
  EXPECT_TRUE(effects_.map_changes.contains({File_id{file_}, Chunk_id{chunk.chunk()}}));
}

TEST_F(Healing_state, A_server_is_dropped_once_it_is_empty_and_never_comes_back) {
  auto const a = add_server(2);
  add_server(2);
  auto const chunk = make_chunk(2, 1);
  auto const c = add_server(2);
  ASSERT_EQ(release(a).status(), 0u);
  drop(a);
  EXPECT_FALSE(is_dropped(a));
  sync_onto(chunk.chunk(), c);
  remove_replica(chunk.chunk(), version_of(chunk.chunk()), a);
  drop(a);
  EXPECT_TRUE(is_dropped(a));
  auto const refused = register_server(2, a, 1, 2);
  EXPECT_EQ(status(refused), Errc::dropped);
  EXPECT_NE(refused.text().find("has been removed from the cluster"), std::string::npos);
  EXPECT_EQ(status(release(a)), Errc::not_found);
  EXPECT_EQ(machine_->database().number("SELECT count(*) FROM garbage WHERE cs = ?", 0, a), 0u);
}

TEST_F(Healing_state, A_cancelled_release_is_not_completed_by_a_late_drop) {
  auto const a = add_server(2);
  ASSERT_EQ(release(a).status(), 0u);
  ASSERT_EQ(release(a, false, true).status(), 0u);
  drop(a);
  EXPECT_FALSE(is_dropped(a));
}

TEST_F(Healing_state, More_replicas_make_a_chunk_degraded_fewer_make_it_overcommitted) {
  add_server(2);
  add_server(2);
  add_server(2);
  auto const chunk = make_chunk(2, 1);
  proto::Attributes change;
  change.set_replicas_norm(3);
  change.set_replicas_min(2);
  ASSERT_EQ(set_attributes(change).status(), 0u);
  EXPECT_EQ(stored_state(chunk.chunk()), Chunk_state::urgent);
  EXPECT_TRUE(effects_.minimums.contains(File_id{file_}));
  change.set_replicas_norm(1);
  change.set_replicas_min(1);
  ASSERT_EQ(set_attributes(change, true, "/").status(), 0u);  // -R
  EXPECT_EQ(stored_state(chunk.chunk()), Chunk_state::overcommitted);
}

TEST_F(Healing_state, Another_tier_or_failure_domain_makes_a_chunk_misplaced) {
  auto const a = add_server(2, 7);
  auto const b = add_server(2, 8);
  auto const chunk = make_chunk(2, 1);
  EXPECT_EQ(stored_state(chunk.chunk()), Chunk_state::healthy);
  proto::Attributes change;
  change.set_tier(2);
  ASSERT_EQ(set_attributes(change).status(), 0u);
  EXPECT_EQ(stored_state(chunk.chunk()), Chunk_state::misplaced);
  change.set_tier(0);
  ASSERT_EQ(set_attributes(change).status(), 0u);
  EXPECT_EQ(stored_state(chunk.chunk()), Chunk_state::healthy);
  proto::Attributes room;
  room.set_failure_domain("room");
  ASSERT_EQ(set_attributes(room).status(), 0u);
  EXPECT_EQ(stored_state(chunk.chunk()), Chunk_state::misplaced);  // no locations: one room
  (void)a;
  (void)b;
}

TEST_F(Healing_state, A_disk_that_moves_into_the_host_of_the_other_replica_is_noticed) {
  auto const a = add_server(2, 7);
  auto const b = add_server(2, 8);
  auto const chunk = make_chunk(2, 1);
  ASSERT_EQ(replica_state(chunk.chunk(), a), proto::REPLICA_IN_SYNC);
  ASSERT_EQ(register_server(2, b, 7, 5).status(), 0u);
  EXPECT_EQ(stored_state(chunk.chunk()), Chunk_state::misplaced);
}

TEST_F(Healing_state, A_failed_move_leaves_nothing_behind_for_long) {
  add_server(2);
  add_server(2);
  auto const chunk = make_chunk(2, 1);
  auto const c = add_server(2);
  start_sync(chunk, c);
  ASSERT_EQ(sync_done(2, chunk.chunk(), version_of(chunk.chunk()), c, epoch_, true).status(), 0u);
  EXPECT_EQ(replica_state(chunk.chunk(), c), proto::REPLICA_STALE);
  EXPECT_EQ(stored_state(chunk.chunk()), Chunk_state::overcommitted);
  remove_replica(chunk.chunk(), version_of(chunk.chunk()), c);
  EXPECT_EQ(replica_state(chunk.chunk(), c), -1);
}

TEST_F(Healing_state, Only_removed_chunks_become_garbage) {
  auto const a = add_server(2);
  auto const chunk = make_chunk(1, 1);
  proto::Mds_request request;
  request.mutable_add_garbage()->set_cs(a);
  request.mutable_add_garbage()->add_chunks(chunk.chunk());
  request.mutable_add_garbage()->add_chunks(chunk.chunk() + 1000);  // not given out yet
  own(request);
  EXPECT_EQ(machine_->database().number("SELECT count(*) FROM garbage", 0), 0u);
  proto::Mds_request free;
  free.mutable_free_chunks()->set_file(file_);
  free.mutable_free_chunks()->set_epoch(epoch_);
  free.mutable_free_chunks()->add_indexes(0);
  ASSERT_EQ(ask(1, std::move(free)).status(), 0u);
  machine_->database().run("DELETE FROM garbage");  // as if the CS had said that it is deleted
  own(request);
  EXPECT_EQ(machine_->database().number("SELECT chunk FROM garbage", 0), chunk.chunk());
}

}  // namespace
}  // namespace pstorage::mds
