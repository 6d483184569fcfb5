// Raft nodes, and copies of the database, over real sockets and files.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mds/raft/database_snapshot.h"
#include "mds/raft/raft_node.h"
#include "mds/state/state_machine.h"
#include "tests/core/network_fixture.h"

namespace pstorage::mds::raft {
namespace {

/// A port of 127.0.0.1 that nobody listens on just now.
std::uint16_t free_port() {
  int const socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* const plain = reinterpret_cast<sockaddr*>(&address);
  EXPECT_EQ(::bind(socket, plain, length), 0);
  EXPECT_EQ(::getsockname(socket, plain, &length), 0);
  ::close(socket);
  return ntohs(address.sin_port);
}

Runtime_options mds_options() {
  auto options = test::options();
  options.identity.role = Role::mds;
  return options;
}

/// A process with a node of its own.
class Process final : public Log_listener, public Turn_hook {
 public:
  Process(std::uint64_t id, Configuration const& first) : runtime_(mds_options(), log_) {
    disk_ = runtime_.open_disk(directory_.path()).value();
    Raft_node_options options;
    options.cluster_uuid = "uuid";
    options.listen = Address::parse(first.find(Member_id{id})->address, 2510).value();
    options.log.member = Member_id{id};
    options.log.first = first;
    options.tick_ticks = 1;
    node = std::make_unique<Raft_node>(runtime_.clock(), runtime_.network(), *disk_,
                                       runtime_.random(), log_, options, nullptr, nullptr);
    auto const started = node->start(0, *this);
    EXPECT_TRUE(started.has_value()) << (started.has_value() ? "" : started.error().text);
    runtime_.network().set_turn_hook(this);
    runtime_.add_ticker(*node);
  }
  ~Process() override {
    runtime_.remove_ticker(*node);
    runtime_.network().set_turn_hook(nullptr);
    node.reset();
  }
  void on_leadership(bool) override {}
  void on_committed(std::vector<Committed_entry> entries) override {
    for (auto& entry : entries) {
      if (!entry.bytes.empty()) words.push_back(std::move(entry.bytes));
    }
  }
  void on_log_failed(Failure const& why) override { ADD_FAILURE() << why.text; }
  void on_turn_end() override { node->flush(); }
  void turn() { runtime_.run_turn(std::chrono::microseconds(200)); }

  std::unique_ptr<Raft_node> node;
  std::vector<std::string> words;

 private:
  test::Temporary_directory directory_;
  test::Memory_log log_;
  Runtime runtime_;
  std::unique_ptr<Disk> disk_;
};

using Processes = std::vector<std::unique_ptr<Process>>;

bool turn_until(Processes& processes, std::function<bool()> const& done) {
  auto const deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    for (auto& process : processes) process->turn();
  }
  return true;
}

Process* leader_of(Processes& processes) {
  for (auto& process : processes) {
    if (process->node->is_leader()) return process.get();
  }
  return nullptr;
}

TEST(Real_raft_nodes, Three_commit_and_survive_the_loss_of_the_leader) {
  Configuration first;
  for (std::uint64_t id = 1; id <= 3; ++id) {
    first.add({Member_id{id}, Member_kind::voter, "127.0.0.1:" + std::to_string(free_port())});
  }
  Processes processes;
  for (std::uint64_t id = 1; id <= 3; ++id) {
    processes.push_back(std::make_unique<Process>(id, first));
  }
  ASSERT_TRUE(turn_until(processes, [&] { return leader_of(processes) != nullptr; }));
  auto* leader = leader_of(processes);
  for (int i = 0; i < 100; ++i) {
    auto const proposed =
        leader->node->propose("word " + std::to_string(i) + std::string(500, 'x'));
    ASSERT_TRUE(proposed.has_value()) << proposed.error().text;
  }
  ASSERT_TRUE(turn_until(processes, [&] {
    return std::all_of(processes.begin(), processes.end(),
                       [](auto const& process) { return process->words.size() == 100; });
  }));
  std::erase_if(processes, [leader](auto const& process) { return process.get() == leader; });
  ASSERT_TRUE(turn_until(processes, [&] { return leader_of(processes) != nullptr; }));
  leader = leader_of(processes);
  ASSERT_TRUE(leader->node->propose("last").has_value());
  ASSERT_TRUE(turn_until(processes, [&] {
    return processes[0]->words.size() == 101 && processes[1]->words.size() == 101;
  }));
  EXPECT_EQ(processes[0]->words, processes[1]->words);
}

TEST(Database_snapshots, A_copy_is_the_database_at_one_index_while_writes_go_on) {
  test::Temporary_directory directory;
  test::Memory_log log;
  Runtime runtime(mds_options(), log);
  auto const disk = runtime.open_disk(directory.path()).value();
  auto machine = State_machine::open(directory.path("mds.db")).value();
  auto const apply = [&machine](std::uint64_t index) {
    Effects effects;
    // What the log adds on its own account counts, and changes nothing else.
    Committed_entry const entry{index, ""};
    EXPECT_TRUE(machine->apply({&entry, 1}, effects).has_value());
  };
  for (std::uint64_t index = 1; index <= 5; ++index) apply(index);
  machine->database().run("CREATE TABLE filler(bytes BLOB)");
  for (int i = 0; i < 3000; ++i)
    machine->database().run("INSERT INTO filler VALUES(zeroblob(1000))");

  Database_snapshot_source source(*disk, directory.path(), "mds.db", log);
  std::unique_ptr<Snapshot_reader> reader;
  source.open([&reader](Result<std::unique_ptr<Snapshot_reader>> opened) {
    ASSERT_TRUE(opened.has_value());
    reader = std::move(opened).value();
  });
  std::uint64_t index = 5;
  for (int i = 0; i < 1000 && !reader; ++i) {
    source.on_tick();
    apply(++index);
  }
  ASSERT_TRUE(reader);
  EXPECT_EQ(reader->index(), 5u);
  EXPECT_GT(index, 6u) << "the copy took several ticks";

  File_snapshot_sink sink(*disk, "received.db", {}, {[] {}, [] { return success(); }});
  ASSERT_TRUE(sink.begin().has_value());
  std::uint64_t offset = 0;
  while (offset < reader->size_bytes()) {
    auto const length =
        std::min<std::uint64_t>(snapshot_piece_bytes, reader->size_bytes() - offset);
    std::optional<Result<Slice>> piece;
    reader->read(offset, length, [&piece](Result<Slice> read) { piece = std::move(read); });
    while (!piece) runtime.run_turn(std::chrono::milliseconds(1));
    ASSERT_TRUE(piece->has_value());
    ASSERT_TRUE(sink.write(offset, piece->value().bytes()).has_value());
    offset += length;
  }
  ASSERT_TRUE(sink.install(5).has_value());
  auto const copy = State_machine::open(directory.path("received.db")).value();
  EXPECT_EQ(copy->applied(), 5u);
  EXPECT_EQ(copy->database().number("SELECT count(*) FROM filler", 0), 3000u);
  EXPECT_FALSE(disk->exists("mds.db.copy-1")) << "copies leave nothing behind";
}

}  // namespace
}  // namespace pstorage::mds::raft
