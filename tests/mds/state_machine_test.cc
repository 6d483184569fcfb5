#include <filesystem>

#include "mds/state/chunks.h"
#include "mds/state/settings.h"
#include "tests/mds/fakes.h"
#include "tests/mds/state_fixture.h"

namespace pstorage::mds {
namespace {

/// Every row of every table as text.
std::string dump(Database& database) {
  static constexpr std::pair<char const*, int> queries[] = {
      {"SELECT name, number, text FROM meta ORDER BY name", 3},
      {"SELECT name, value FROM config ORDER BY name", 2},
      {"SELECT id, type, size, links, norm, min, domain, tier, chunk_size, ssd_cache, modified_ms,"
       " chunks, mode, uid, gid, modified_sub_ns, changed_ms FROM inode ORDER BY id",
       17},
      {"SELECT file, epoch FROM reading ORDER BY file", 2},
      {"SELECT file, session FROM reader ORDER BY file, session", 2},
      {"SELECT file, session FROM revoked ORDER BY file, session", 2},
      {"SELECT inode, target FROM symlink ORDER BY inode", 2},
      {"SELECT parent, name, inode FROM dirent ORDER BY parent, name", 3},
      {"SELECT inode, name, value FROM property ORDER BY inode, name", 3},
      {"SELECT id, file, position, version, state FROM chunk ORDER BY id", 5},
      {"SELECT chunk, cs, state FROM replica ORDER BY chunk, cs", 3},
      {"SELECT id, name, location FROM host ORDER BY id", 3},
      {"SELECT id, repository, host, tier, state, incarnation, addresses, total, free, flags"
       " FROM cs ORDER BY id",
       10},
      {"SELECT id, name, host, role, opened_ms, acked_below FROM session ORDER BY id", 6},
      {"SELECT file, session, epoch, sealed, fenced FROM lease ORDER BY file", 5},
      {"SELECT number, time_ms, source, severity, text FROM event ORDER BY number", 5},
      {"SELECT chunk, cs FROM garbage ORDER BY chunk, cs", 2},
      {"SELECT session, sequence, reply FROM reply ORDER BY session, sequence", 3},
  };
  std::string text;
  for (auto const& [sql, columns] : queries) {
    Rows rows(database, sql);
    while (rows.next()) {
      for (int i = 0; i < columns; ++i) text += rows.text(i) + "|";
      text += "\n";
    }
  }
  return text;
}

class Machine : public State_fixture {
 protected:
  /// A random but plausible life of a cluster.
  void live(int commands, std::uint64_t seed) {
    Test_random random(seed);
    open_session(1);
    open_session(2);
    std::vector<std::uint32_t> servers;
    for (int i = 0; i < 5; ++i) servers.push_back(add_server(1, 1 + random.below(4)));
    for (int i = 0; i < commands; ++i) {
      auto const session = 1 + random.below(2);
      auto const path =
          "/d" + std::to_string(random.below(3)) + "/f" + std::to_string(random.below(4));
      auto const other = "/d" + std::to_string(random.below(3));
      switch (random.below(10)) {
        case 0:
          create(session, path, random.below(1ull << 28), 1 + (i & 1));
          break;
        case 1:
          remove(session, path);
          break;
        case 2:
          rename(session, path, other + "/g");
          break;
        case 3:
          set_cs_state(servers[random.below(5)], random.below(2) ? "active" : "inactive");
          break;
        case 4:
          expire(1 + random.below(2));
          open_session(1);
          open_session(2);
          sequences_.clear();
          break;
        default:
          write(session, path, servers[random.below(5)], random.below(2) == 0);
      }
    }
  }
  void write(std::uint64_t session, std::string const& path, std::uint32_t cs, bool close) {
    auto const opened = open_file(session, path, close);
    if (opened.status() != 0) return;
    auto const file = opened.lease().file().id();
    auto const epoch = opened.lease().epoch();
    finish_seal(session, file, epoch, {cs});
    auto const allocated = allocate(session, file, epoch, {0, 1});
    for (auto const& chunk : allocated.map().chunks()) {
      report_failed(session, file, epoch, chunk, {cs});
    }
    if (close) close_file(session, file, epoch);
  }
};

TEST_F(Machine, One_transaction_does_not_grow_with_the_backlog) {
  std::vector<Committed_entry> entries;
  for (std::uint64_t index = 1; index <= 300; ++index) {
    Entry entry;
    entry.mutable_request()->mutable_add_event()->set_text("event " + std::to_string(index));
    entries.push_back({index, entry.SerializeAsString()});
  }
  auto machine = std::move(State_machine::open(":memory:")).value();
  std::size_t batches = 0;
  for (std::span<Committed_entry const> left = entries; !left.empty(); ++batches) {
    Effects effects;
    auto const applied = machine->apply(left, effects, 100);
    ASSERT_TRUE(applied.has_value());
    ASSERT_FALSE(applied.value().empty());
    EXPECT_EQ(machine->applied(), applied.value().back().index);
    left = left.subspan(applied.value().size());
  }
  EXPECT_GE(batches, 3u);
  EXPECT_EQ(machine->applied(), entries.size());
}

TEST_F(Machine, The_same_log_gives_the_same_database_whatever_the_batches) {
  live(400, 7);
  auto const expected = dump(machine_->database());
  ASSERT_GT(expected.size(), 5000u);
  for (std::size_t const batch : {1u, 3u, 1000u}) {
    auto other = std::move(State_machine::open(":memory:")).value();
    for (std::span<Committed_entry const> left = log_; !left.empty();) {
      Effects effects;
      auto const applied = other->apply(left.first(std::min(batch, left.size())), effects);
      ASSERT_TRUE(applied.has_value());
      left = left.subspan(applied.value().size());
    }
    EXPECT_EQ(dump(other->database()), expected) << "batches of " << batch;
  }
}

TEST_F(Machine, Invariants_hold_after_every_life) {
  for (std::uint64_t seed = 1; seed < 6; ++seed) {
    live(100, seed);
    auto& database = machine_->database();
    EXPECT_EQ(database.number("SELECT count(*) FROM replica JOIN garbage ON"
                              " garbage.chunk = replica.chunk AND garbage.cs = replica.cs",
                              9),
              0u);
    EXPECT_EQ(database.number("SELECT count(*) FROM chunk WHERE NOT EXISTS (SELECT 1 FROM replica"
                              " WHERE replica.chunk = chunk.id AND replica.state = 0)",
                              9),
              0u);
    EXPECT_EQ(database.number("SELECT count(*) FROM inode WHERE chunks <>"
                              " (SELECT count(*) FROM chunk WHERE file = inode.id)",
                              9),
              0u);
    EXPECT_EQ(database.number("SELECT count(*) FROM lease WHERE file NOT IN"
                              " (SELECT id FROM inode)",
                              9),
              0u);
    EXPECT_EQ(database.number("SELECT count(*) FROM replica WHERE chunk NOT IN"
                              " (SELECT id FROM chunk)",
                              9),
              0u);
  }
}

TEST_F(Machine, A_repeated_command_answers_what_it_answered_and_does_nothing) {
  open_session(1);
  proto::Mds_request request;
  request.set_session(1);
  request.set_sequence(5);
  request.mutable_create()->set_path("/file");
  auto const first = own(request);
  auto const before = machine_->database().number("SELECT count(*) FROM inode", 0);
  auto const second = own(request);
  EXPECT_EQ(first.SerializeAsString(), second.SerializeAsString());
  EXPECT_EQ(second.status(), 0u);
  EXPECT_EQ(machine_->database().number("SELECT count(*) FROM inode", 0), before);
}

TEST_F(Machine, A_refusal_is_repeated_too) {
  open_session(1);
  proto::Mds_request request;
  request.set_session(1);
  request.set_sequence(5);
  request.mutable_remove()->set_path("/file");
  auto const first = own(request);
  EXPECT_EQ(status(first), Errc::not_found);
  create(1, "/file");
  EXPECT_EQ(own(request).text(), first.text());
}

TEST_F(Machine, Acknowledged_replies_are_forgotten_and_their_commands_never_run_again) {
  open_session(1);
  proto::Mds_request request;
  request.set_session(1);
  request.set_sequence(1);
  request.mutable_create()->set_path("/a");
  own(request);
  auto next = request;
  next.set_sequence(2);
  next.set_acked_below(2);
  next.mutable_create()->set_path("/b");
  own(next);
  EXPECT_EQ(machine_->database().number("SELECT count(*) FROM reply", 9), 1u);
  EXPECT_EQ(status(own(request)), Errc::refused);
}

TEST_F(Machine, Commands_of_unknown_sessions_are_refused) {
  proto::Mds_request request;
  request.set_session(77);
  request.set_sequence(1);
  request.mutable_create()->set_path("/a");
  EXPECT_EQ(status(own(request)), Errc::session_expired);
}

TEST_F(Machine, A_refused_command_leaves_nothing_behind) {
  open_session(1);
  add_server(1);
  create(1, "/file", 1 << 30, 1);
  std::uint64_t file = 0;
  auto const epoch = lease(1, "/file", file);
  // The third index is out of bounds: the first two must not be mapped either.
  EXPECT_EQ(status(allocate(1, file, epoch, {0, 1, 9999})), Errc::bad_request);
  EXPECT_EQ(machine_->database().number("SELECT count(*) FROM chunk", 9), 0u);
  EXPECT_EQ(resolve(machine_->database(), "/file").value().chunks, 0u);
}

TEST_F(Machine, Malformed_entries_are_refused_and_do_no_harm) {
  log_.push_back({machine_->applied() + 1, "\xff\xff\xff garbage"});
  auto const applied = machine_->apply({&log_.back(), 1}, effects_);
  ASSERT_TRUE(applied.has_value());
  EXPECT_EQ(status(applied.value().front().reply), Errc::bad_request);
}

TEST_F(Machine, Events_are_bounded) {
  proto::Mds_request request;
  request.mutable_add_event()->set_source("MDS");
  request.mutable_add_event()->set_severity("INF");
  request.mutable_add_event()->set_text("x");
  machine_->database().run("UPDATE meta SET number = 99990 WHERE name = 'event'");
  for (int i = 0; i < 30; ++i) own(request);
  EXPECT_EQ(machine_->database().number("SELECT min(number) FROM event", 0), 99991u);
}

TEST_F(Machine, Settings_are_known_bounded_and_have_defaults) {
  open_session(1);
  auto const set = [this](std::string const& name, std::string const& value) {
    proto::Mds_request request;
    request.mutable_set_config()->set_name(name);
    request.mutable_set_config()->set_value(value);
    return ask(1, std::move(request));
  };
  EXPECT_EQ(setting_number(machine_->database(), "mds.wd.offline_tout"), 300000u);
  EXPECT_EQ(set("mds.wd.offline_tout", "5000").status(), 0u);
  EXPECT_EQ(setting_number(machine_->database(), "mds.wd.offline_tout"), 5000u);
  auto const unknown = set("mds.wd.ofline_tout", "1");
  EXPECT_NE(unknown.text().find("did you mean 'mds.wd.offline_tout'?"), std::string::npos);
  EXPECT_EQ(status(set("net.encryption", "2")), Errc::bad_request);
  EXPECT_EQ(status(set("mds.alloc.fill_margin", "x")), Errc::bad_request);
}

TEST_F(Machine, Servers_get_ids_from_1025_and_a_copied_repository_is_refused) {
  open_session(1);
  auto const first = add_server(1);
  auto const second = add_server(1);
  EXPECT_EQ(first, 1025u);
  EXPECT_EQ(second, 1026u);
  auto const copied = register_server(1, second, 2, 9, "repository-1025");
  EXPECT_EQ(status(copied), Errc::refused);
  EXPECT_NE(copied.text().find("copied or foreign"), std::string::npos);
  EXPECT_EQ(status(register_server(1, 4000, 2, 9)), Errc::not_found);
}

TEST_F(Machine, The_health_of_the_cluster_is_written_down_when_it_changes) {
  open_session(1);
  auto const cs = add_server(1);
  add_server(1);
  EXPECT_TRUE(has_event("The cluster is healthy with 2 active CS"));
  set_cs_state(cs, "inactive");
  EXPECT_TRUE(has_event("The cluster is degraded with 1 active, 1 inactive, 0 offline CS"));
  auto const before = events().size();
  set_cs_state(cs, "inactive");
  EXPECT_EQ(events().size(), before);
}

TEST(Machine_on_disk, A_reopened_database_knows_what_it_has_applied) {
  char name[] = "/tmp/mds_test_XXXXXX";
  ASSERT_NE(::mkdtemp(name), nullptr);
  std::string const path = std::string(name) + "/mds.db";
  {
    auto machine = std::move(State_machine::open(path)).value();
    Entry entry;
    entry.mutable_request()->mutable_bootstrap()->set_cluster("stor1");
    Effects effects;
    Committed_entry const committed{1, entry.SerializeAsString()};
    ASSERT_TRUE(machine->apply({&committed, 1}, effects).has_value());
    EXPECT_EQ(machine->durable(), 0u);
    auto const complete = Database::checkpoint(path);
    ASSERT_TRUE(complete.has_value());
    EXPECT_TRUE(complete.value());
    std::filesystem::copy_file(path, path + ".alone");  // without its log
  }
  EXPECT_EQ(std::move(State_machine::open(path + ".alone")).value()->applied(), 1u);
  auto machine = std::move(State_machine::open(path)).value();
  EXPECT_EQ(machine->applied(), 1u);
  machine.reset();
  std::filesystem::remove_all(name);
}

}  // namespace
}  // namespace pstorage::mds
