// What pstorage-mount needs of the state machine.
#include <sqlite3.h>
#include <sys/stat.h>

#include <filesystem>

#include "mds/state/chunks.h"
#include "mds/state/schema.h"
#include "tests/mds/state_fixture.h"

namespace pstorage::mds {
namespace {

class Mount_commands : public State_fixture {
 protected:
  Mount_commands() {
    open_session(1, "mount[1]@host1");
    open_session(2, "mount[2]@host2");
  }

  proto::Lease create_open(std::uint64_t session, std::string const& path) {
    proto::Mds_request request;
    request.mutable_create()->set_path(path);
    request.mutable_create()->set_open(true);
    request.mutable_create()->mutable_inode()->set_mode(S_IFREG | 0640);
    request.mutable_create()->mutable_inode()->set_uid(7);
    auto const reply = ask(session, std::move(request));
    EXPECT_EQ(reply.status(), 0u) << reply.text();
    return reply.lease();
  }
  proto::Mds_reply open_shared(std::uint64_t session, std::string const& path) {
    proto::Mds_request request;
    request.mutable_open_file()->set_path(path);
    request.mutable_open_file()->set_shared(true);
    return ask(session, std::move(request));
  }
  proto::Mds_reply close_shared(std::uint64_t session, std::uint64_t file) {
    proto::Mds_request request;
    request.mutable_close_file()->set_file(file);
    request.mutable_close_file()->set_shared(true);
    return ask(session, std::move(request));
  }
  proto::Mds_reply close_with_size(std::uint64_t session, proto::Lease const& lease,
                                   std::uint64_t size) {
    proto::Mds_request request;
    request.mutable_close_file()->set_file(lease.file().id());
    request.mutable_close_file()->set_epoch(lease.epoch());
    request.mutable_close_file()->mutable_change()->set_size(size);
    request.mutable_close_file()->mutable_change()->set_modified_ms(1234);
    request.mutable_close_file()->mutable_change()->set_modified_sub_ns(567);
    return ask(session, std::move(request));
  }
  proto::Mds_reply allocate_beyond(std::uint64_t session, proto::Lease const& lease,
                                   std::vector<std::uint32_t> const& indexes) {
    proto::Mds_request request;
    request.mutable_allocate()->set_file(lease.file().id());
    request.mutable_allocate()->set_epoch(lease.epoch());
    request.mutable_allocate()->set_beyond_end(true);
    for (auto const index : indexes) request.mutable_allocate()->add_indexes(index);
    return ask(session, std::move(request));
  }
  Outcome<Inode> look(std::string const& path) { return resolve(machine_->database(), path); }
  std::uint64_t count(char const* sql) { return machine_->database().number(sql, 99); }
  static std::string at(std::uint64_t inode) { return "@" + std::to_string(inode); }
};

TEST_F(Mount_commands, A_path_may_begin_at_an_inode) {
  create_directory(1, "/d");
  auto const directory = look("/d").value().id.value;
  auto const file = create_open(1, at(directory) + "/file").file().id();
  EXPECT_EQ(look("/d/file").value().id.value, file);
  EXPECT_EQ(rename(1, "/d", "/moved").status(), 0u);
  EXPECT_EQ(look(at(directory) + "/file").value().id.value, file);
  EXPECT_EQ(look(at(file)).value().mode, S_IFREG | 0640u);
  EXPECT_EQ(look(at(file)).value().uid, 7u);
  for (auto const* const bad : {"@", "@x", "@1x/file", "@99", "@99/file", "@-1"}) {
    EXPECT_TRUE(look(bad).has_error()) << bad;
  }
}

TEST_F(Mount_commands, A_symbolic_link_keeps_its_target_and_goes_with_it) {
  proto::Mds_request request;
  request.mutable_create()->set_path("/link");
  request.mutable_create()->set_type(proto::TYPE_SYMLINK);
  request.mutable_create()->set_target("../somewhere");
  EXPECT_EQ(ask(1, request).file().target(), "../somewhere");
  request.mutable_create()->set_path("/other");
  request.mutable_create()->clear_target();
  EXPECT_EQ(status(ask(1, request)), Errc::bad_request);
  EXPECT_EQ(remove(1, "/link").status(), 0u);
  EXPECT_EQ(count("SELECT count(*) FROM symlink"), 0u);
}

TEST_F(Mount_commands, A_file_grows_and_its_size_is_told_at_the_close) {
  add_server(1);
  auto const lease = create_open(1, "/file");
  EXPECT_TRUE(lease.sealed());
  EXPECT_TRUE(lease.clean());
  EXPECT_EQ(status(allocate(1, lease.file().id(), lease.epoch(), {0})), Errc::bad_request);
  EXPECT_EQ(allocate_beyond(1, lease, {0, 1, 2}).map().chunks_size(), 3);
  // What lies behind the size that is told goes.
  EXPECT_EQ(close_with_size(1, lease, (64u << 20) + 5).status(), 0u);
  auto const inode = look("/file").value();
  EXPECT_EQ(inode.size, (64u << 20) + 5u);
  EXPECT_EQ(inode.chunks, 2u);
  EXPECT_EQ(inode.modified_ms, 1234u);
  EXPECT_EQ(inode.modified_sub_ns, 567u);
  EXPECT_EQ(count("SELECT count(*) FROM lease"), 0u);
}

TEST_F(Mount_commands, What_a_dead_writer_left_behind_the_end_goes_with_the_next_lease) {
  add_server(1);
  auto const lease = create_open(1, "/file");
  allocate_beyond(1, lease, {0, 1});
  expire(1);
  open_session(1, "mount[1]@host1");
  sequences_.erase(1);
  EXPECT_EQ(status(open_shared(2, "/file")), Errc::refused);
  auto const next = open_file(2, "/file").lease();
  EXPECT_FALSE(next.clean());
  EXPECT_EQ(next.map().chunks_size(), 0);
  EXPECT_EQ(look("/file").value().chunks, 0u);
}

TEST_F(Mount_commands, Many_read_or_one_writes) {
  auto const lease = create_open(1, "/file");
  EXPECT_EQ(status(open_shared(2, "/file")), Errc::busy);
  EXPECT_EQ(close_with_size(1, lease, 10).status(), 0u);
  auto const read = open_shared(2, "/file").lease();
  EXPECT_TRUE(read.shared());
  EXPECT_EQ(read.epoch(), lease.epoch());
  EXPECT_EQ(open_shared(1, "/file").status(), 0u);
  auto const refused = open_file(1, "/file");
  EXPECT_EQ(status(refused), Errc::busy);
  EXPECT_NE(refused.text().find("mount[2]@host2"), std::string::npos) << refused.text();
  EXPECT_EQ(status(remove(1, "/file")), Errc::busy);
  EXPECT_EQ(close_shared(2, read.file().id()).status(), 0u);
  // Its own reading is no obstacle, and ends with it.
  EXPECT_EQ(open_file(1, "/file").status(), 0u);
  EXPECT_EQ(count("SELECT count(*) FROM reader"), 0u);
}

TEST_F(Mount_commands, Force_sends_readers_away) {
  close_with_size(1, create_open(1, "/file"), 10);
  open_shared(2, "/file");
  effects_.lost_leases.clear();
  EXPECT_EQ(open_file(1, "/file", true).status(), 0u);
  ASSERT_EQ(effects_.lost_leases.size(), 1u);
  EXPECT_EQ(effects_.lost_leases[0].session, Session_id{2});
}

TEST_F(Mount_commands, Readers_sent_away_are_former_holders_until_a_writer_has_sealed) {
  open_session(3, "mount[3]@host3");
  open_session(4, "mount[4]@host4");
  close_with_size(1, create_open(1, "/file"), 10);
  open_shared(2, "/file");
  open_shared(3, "/file");
  proto::Mds_request revoke;
  revoke.mutable_revoke()->set_path("/file");
  EXPECT_EQ(ask(4, revoke).status(), 0u);
  // Whoever only reads has not to wait for those who only read.
  EXPECT_EQ(open_shared(3, "/file").lease().previous_sessions_size(), 0);
  auto const first = open_file(4, "/file", true).lease();
  ASSERT_EQ(first.previous_sessions_size(), 2);
  EXPECT_EQ(first.previous_sessions(0), 2u);
  EXPECT_EQ(first.previous_sessions(1), 3u);
  // It has not waited for them: the next one has to.
  EXPECT_EQ(close_with_size(4, first, 10).status(), 0u);
  auto const second = open_file(2, "/file").lease();
  ASSERT_EQ(second.previous_sessions_size(), 1);
  EXPECT_EQ(second.previous_sessions(0), 3u);
  EXPECT_EQ(finish_seal(2, second.file().id(), second.epoch()).status(), 0u);
  EXPECT_EQ(close_with_size(2, second, 10).status(), 0u);
  EXPECT_EQ(open_file(4, "/file").lease().previous_sessions_size(), 0);
  EXPECT_EQ(count("SELECT count(*) FROM revoked"), 0u);
}

TEST_F(Mount_commands, A_session_that_has_ended_need_not_be_waited_for) {
  close_with_size(1, create_open(1, "/file"), 10);
  open_shared(2, "/file");
  expire(2);
  EXPECT_EQ(count("SELECT count(*) FROM reader"), 0u);
  EXPECT_EQ(open_file(1, "/file").lease().previous_sessions_size(), 0);
  open_session(3, "mount[3]@host3");
  EXPECT_EQ(open_file(3, "/file", true).lease().previous_sessions(0), 1u);
  expire(1);
  EXPECT_EQ(count("SELECT count(*) FROM revoked"), 0u);
}

TEST_F(Mount_commands, A_reader_may_report_a_replica_that_does_not_answer) {
  std::vector<std::uint32_t> const servers = {add_server(1), add_server(1)};
  proto::Mds_request replicas;
  replicas.mutable_set_attributes()->set_path("/");
  replicas.mutable_set_attributes()->mutable_attributes()->set_replicas_norm(2);
  ask(1, replicas);
  auto const lease = create_open(1, "/file");
  auto const chunk = allocate_beyond(1, lease, {0}).map().chunks(0);
  close_with_size(1, lease, 10);
  auto const read = open_shared(2, "/file").lease();
  auto const map = report_failed(2, read.file().id(), read.epoch(), chunk, {servers[0]}).map();
  ASSERT_EQ(map.chunks_size(), 1);
  EXPECT_EQ(map.chunks(0).replicas_size(), 1);
  EXPECT_EQ(status(report_failed(1, read.file().id(), read.epoch(), chunk, {servers[1]})),
            Errc::stale_epoch);
}

TEST_F(Mount_commands, A_file_without_a_name_stays_until_its_user_closes_it) {
  add_server(1);
  auto const lease = create_open(1, "/file");
  allocate_beyond(1, lease, {0});
  EXPECT_EQ(status(remove(2, "/file")), Errc::busy);
  auto const removed = remove(1, "/file");
  EXPECT_EQ(removed.file().links(), 0u);
  EXPECT_TRUE(look("/file").has_error());
  EXPECT_TRUE(look(at(lease.file().id())).has_value());
  EXPECT_EQ(close_with_size(1, lease, 10).status(), 0u);
  EXPECT_TRUE(look(at(lease.file().id())).has_error());
  EXPECT_EQ(count("SELECT count(*) FROM chunk"), 0u);
}

TEST_F(Mount_commands, A_nameless_file_goes_with_the_session_of_its_last_reader) {
  close_with_size(1, create_open(1, "/file"), 10);
  auto const id = open_shared(1, "/file").lease().file().id();
  remove(1, "/file");
  EXPECT_TRUE(look(at(id)).has_value());
  expire(1);
  EXPECT_TRUE(look(at(id)).has_error());
}

TEST_F(Mount_commands, The_size_is_told_only_under_the_lease) {
  auto const lease = create_open(1, "/file");
  proto::Mds_request request;
  request.mutable_set_inode()->set_path("/file");
  request.mutable_set_inode()->set_epoch(lease.epoch());
  request.mutable_set_inode()->mutable_change()->set_size(100);
  EXPECT_EQ(status(ask(2, request)), Errc::stale_epoch);
  EXPECT_EQ(ask(1, request).file().size(), 100u);
  request.mutable_set_inode()->mutable_change()->clear_size();
  request.mutable_set_inode()->mutable_change()->set_mode(S_IFREG | 0400);
  EXPECT_EQ(ask(2, request).file().mode(), S_IFREG | 0400u);
}

TEST_F(Mount_commands, A_directory_is_not_moved_below_itself_by_inode_either) {
  create_directory(1, "/a");
  create_directory(1, "/a/b");
  auto const b = at(look("/a/b").value().id.value);
  EXPECT_EQ(status(rename(1, "/a", b + "/c")), Errc::refused);
  EXPECT_EQ(status(rename(1, "/a", "/a/x")), Errc::refused);
  EXPECT_EQ(rename(1, "/a/b", "/b").status(), 0u);
}

TEST_F(Mount_commands, No_replace_refuses_a_name_that_is_taken) {
  create(1, "/a");
  create(1, "/b");
  proto::Mds_request request;
  request.mutable_rename()->set_from("/a");
  request.mutable_rename()->set_to("/b");
  request.mutable_rename()->set_no_replace(true);
  EXPECT_EQ(status(ask(1, request)), Errc::exists);
  request.mutable_rename()->set_no_replace(false);
  EXPECT_EQ(ask(1, request).file().links(), 0u);
  EXPECT_TRUE(look("/a").has_error());
}

TEST(Schema, A_database_of_version_1_is_brought_up_to_date_in_place) {
  auto const path = std::filesystem::temp_directory_path() /
                    ("pstorage-schema-" + std::to_string(::getpid()) + ".db");
  sqlite3* handle = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &handle), SQLITE_OK);
  ASSERT_EQ(
      sqlite3_exec(handle,
                   "CREATE TABLE meta(name TEXT PRIMARY KEY, number INTEGER NOT NULL DEFAULT 0,"
                   " text TEXT NOT NULL DEFAULT '') WITHOUT ROWID;"
                   "INSERT INTO meta(name, number) VALUES('schema', 1);"
                   "CREATE TABLE inode(id INTEGER PRIMARY KEY, type INTEGER NOT NULL,"
                   " size INTEGER NOT NULL, links INTEGER NOT NULL, norm INTEGER NOT NULL,"
                   " min INTEGER NOT NULL, domain INTEGER NOT NULL, tier INTEGER NOT NULL,"
                   " chunk_size INTEGER NOT NULL, ssd_cache INTEGER NOT NULL,"
                   " modified_ms INTEGER NOT NULL, chunks INTEGER NOT NULL);"
                   "INSERT INTO inode VALUES(1, 1, 0, 1, 3, 2, 1, 0, 67108864, 0, 55, 0);"
                   "CREATE TABLE revoked(file INTEGER PRIMARY KEY, session INTEGER NOT NULL);"
                   "INSERT INTO revoked VALUES(17, 4);"
                   "CREATE TABLE lease(file INTEGER PRIMARY KEY, session INTEGER NOT NULL,"
                   " epoch INTEGER NOT NULL, sealed INTEGER NOT NULL, fenced INTEGER NOT NULL);"
                   "INSERT INTO lease VALUES(17, 0, 9, 1, 0);",
                   nullptr, nullptr, nullptr),
      SQLITE_OK);
  sqlite3_close(handle);
  for (int opens = 0; opens < 2; ++opens) {
    auto opened = Database::open(path);
    ASSERT_TRUE(opened.has_value());
    ASSERT_TRUE(prepare_schema(*opened.value()).has_value());
    auto const root = load_inode(*opened.value(), root_inode);
    ASSERT_TRUE(root.has_value());
    EXPECT_EQ(root->attributes.norm, 3u);
    EXPECT_EQ(root->mode, 0u);
    EXPECT_EQ(revoked_sessions(*opened.value(), File_id{17}), std::vector{Session_id{4}});
    auto const lease = load_lease(*opened.value(), File_id{17});
    ASSERT_TRUE(lease.has_value());
    EXPECT_EQ(lease->epoch, Epoch{9});
    EXPECT_FALSE(lease->settling);
    note_revocation(*opened.value(), File_id{17}, Session_id{5});
    EXPECT_EQ(revoked_sessions(*opened.value(), File_id{17}).size(), 2u);
    opened.value()->run("DELETE FROM revoked WHERE session = 5");
    EXPECT_EQ(opened.value()->number("SELECT number FROM meta WHERE name = 'schema'", 0),
              schema_version);
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace pstorage::mds
