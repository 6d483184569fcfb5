#include "tests/mds/raft/node_bench.h"

#include <algorithm>
#include <sstream>
#include <utility>

namespace pstorage::mds::raft {

Node_host::Node_host(sim::Sim_world& world, Ledger& ledger, std::uint64_t id, Configuration first)
    : world_(world),
      ledger_(ledger),
      host_(world.add_node("mds" + std::to_string(id), Role::mds, Host_id{id})),
      disk_(host_, world.random()) {
  options.cluster_uuid = "uuid-1";
  options.listen = Address::parse(Node_bench::address_of(id), 2510).value();
  options.log.segment_bytes = 64u << 10;
  options.log.reserve_bytes = 8u << 10;
  options.log.first = std::move(first);
  options.log.member = Member_id{id};
  options.tail_entries = 5;
  options.tick_ticks = 1;
}

Node_host::~Node_host() { crash(); }

std::string Node_host::start() {
  state = saved;
  host_.start({this});
  sink_ = std::make_unique<File_snapshot_sink>(
      disk_, "state", std::vector<std::string>{"state-wal"},
      File_snapshot_sink::Hooks{.close_state = [] {},
                                .open_state = [this] { return load_state(); }});
  node_ = std::make_unique<Raft_node>(host_, host_, disk_, world_.random(), log_, options, this,
                                      sink_.get());
  auto const started = node_->start(state.applied, *this);
  if (!started.has_value()) {
    crash();
    return started.error().text;
  }
  host_.set_turn_hook(this);
  return "";
}

void Node_host::crash() {
  if (!is_up()) return;
  host_.stop(true);
  node_.reset();
  sink_.reset();
  disk_.crash();
}

void Node_host::on_committed(std::vector<Committed_entry> entries) {
  for (auto& entry : entries) {
    if (entry.index != state.applied + 1) failure_text = "entries out of order";
    state.applied = entry.index;
    auto const [known, is_new] = ledger_.words.try_emplace(entry.index, entry.bytes);
    if (known->second != entry.bytes) ledger_.fault = "two words at one index";
    if (!entry.bytes.empty()) state.words.push_back(std::move(entry.bytes));
  }
}

void Node_host::on_tick() {
  node_->on_tick();
  if (++ticks_ % 100 == 0) node_->tick();
}

void Node_host::open(Opened done) {
  std::string text = std::to_string(state.applied) + "\n";
  for (auto const& word : state.words) text += word + "\n";
  auto file = disk_.open("copy", {.create = true, .exclusive = false});
  (void)file.value()->truncate(0);
  (void)file.value()->write(0, as_bytes(text));
  done(File_snapshot_reader::open(disk_, "copy", state.applied));
}

Outcome<void> Node_host::load_state() {
  auto const file = disk_.open("state", {}).value();
  std::string text(file->size().value(), '\0');
  (void)file->read(0, {reinterpret_cast<std::byte*>(text.data()), text.size()});
  std::istringstream lines(text);
  state = {};
  lines >> state.applied;
  for (std::string word; lines >> word;) state.words.push_back(word);
  saved = state;
  ++snapshots_installed;
  if (std::exchange(crashes_when_installed, false)) {
    world_.queue().at(Duration{0}, [this] { crash(); });  // before the log's sync
  }
  return success();
}

void Node_host::checkpoint() {
  saved = state;
  host_.run([this] { node_->cut(saved.applied + 1); });
}

std::string Node_host::propose(std::string const& word) {
  std::string why;
  host_.run([&] {
    auto const proposed = node_->propose(word);
    if (!proposed.has_value()) why = proposed.error().text;
  });
  return why;
}

Node_bench::Node_bench(std::size_t voters, std::uint64_t seed) : world_(seed, {}) {
  Configuration first;
  for (std::uint64_t id = 1; id <= voters; ++id) {
    first.add({Member_id{id}, Member_kind::voter, address_of(id)});
  }
  for (std::uint64_t id = 1; id <= voters; ++id) {
    hosts_[id] = std::make_unique<Node_host>(world_, ledger_, id, first);
  }
}

Node_host& Node_bench::add(std::uint64_t id) {
  hosts_[id] = std::make_unique<Node_host>(world_, ledger_, id, Configuration{});
  return *hosts_[id];
}

std::uint64_t Node_bench::leader() {
  std::uint64_t found = 0;
  run_until([&] {
    for (auto& [id, host] : hosts_) {
      if (host->is_up() && host->node().is_leader()) found = id;
    }
    return found != 0;
  });
  return found;
}

void Node_bench::isolate(std::uint64_t id) {
  Time_point const until = world_.now() + std::chrono::hours(1);  // or heal()
  for (auto& [other, host] : hosts_) {
    if (other == id) continue;
    world_.cut(host->host(), hosts_.at(id)->host(), until);
    world_.cut(hosts_.at(id)->host(), host->host(), until);
  }
}

bool Node_bench::commit(std::string const& word) {
  auto const first = leader();
  if (first == 0 || !host(first).propose(word).empty()) return false;
  return run_until([&] {
    auto const& words = host(first).state.words;
    return std::find(words.begin(), words.end(), word) != words.end();
  });
}

bool Node_bench::agree() {
  auto const last = ledger_.words.empty() ? 0 : ledger_.words.rbegin()->first;
  return std::all_of(hosts_.begin(), hosts_.end(), [last](auto const& item) {
    return !item.second->is_up() || item.second->state.applied == last;
  });
}

bool Node_bench::all_have(std::vector<std::string> const& words) {
  return run_until([&] {
    return std::all_of(hosts_.begin(), hosts_.end(), [&](auto const& item) {
      return !item.second->is_up() || item.second->state.words == words;
    });
  });
}

}  // namespace pstorage::mds::raft
