// The planner at scale, without database and network: how long a pass takes, how much memory, how
// many moves, how balanced the result is, after a host is lost for good and after servers were
// added. Prints the table of mds/planner/README.md. By hand; not a test.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <deque>
#include <queue>

#include "mds/planner/balance.h"
#include "tests/mds/fakes.h"

namespace pstorage::mds {
namespace {

constexpr std::uint64_t chunk_bytes = 64u << 20;
constexpr std::size_t norm = 3;
constexpr std::uint32_t first_cs = 1025;
constexpr std::size_t batch = 64;  // chunks that a pass looks at, as the leader does
constexpr std::size_t balance_batch = 32;
constexpr double pass_seconds = 0.02;  // while there is news
constexpr double balance_seconds = 0.2;
constexpr double bytes_a_second = 100e6;  // of one server's disk, pulling
constexpr std::uint16_t nobody = 0xffff;

struct Options {
  std::size_t servers = 1000;
  std::size_t chunks = 10'000'000;
  std::size_t servers_a_host = 10;
  std::size_t added = 10;
  double fill_percent = 60;
};

struct Passes {
  std::uint64_t count = 0;
  double seconds = 0;
  double longest = 0;
};

class World {
 public:
  explicit World(Options const& options) : options_(options) {
    for (std::size_t i = 0; i < options.servers; ++i) add_server();
    auto const replicas =
        static_cast<double>(options.chunks * norm) / static_cast<double>(options.servers);
    total_bytes_ = static_cast<std::uint64_t>(replicas * chunk_bytes * 100 / options.fill_percent);
    for (auto& server : servers_) server.total_bytes = total_bytes_;
    fill();
  }

  void add_server() {
    auto const index = servers_.size();
    servers_.push_back({Cs_id{first_cs + static_cast<std::uint32_t>(index)},
                        Host_id{1 + index / options_.servers_a_host}, "", 0, total_bytes_,
                        total_bytes_, true, "active"});
    on_server_.emplace_back();
    cursor_.push_back(0);
  }
  /// Takes a whole host away: its replicas are gone.
  std::size_t lose_host(std::uint64_t host) {
    std::size_t lost = 0;
    for (std::size_t i = 0; i < servers_.size(); ++i) {
      if (servers_[i].host.value != host) continue;
      servers_[i].state = "offline";
      servers_[i].usable = false;
      for (auto const chunk : on_server_[i]) {
        if (!drop(chunk, static_cast<std::uint16_t>(i))) continue;
        degraded_.push_back(chunk);
        ++lost;
      }
      on_server_[i].clear();
    }
    refresh();
    return lost;
  }
  /// Lets the planner work until it has nothing more to do; virtual seconds.
  double settle() {
    double const begin = now_;
    double quiet = 0;
    while (quiet < 10 * balance_seconds) {
      bool const did = pass() || !running_.empty();
      quiet = did ? 0 : quiet + pass_seconds;
      now_ += pass_seconds;
      finish_syncs();
    }
    return now_ - begin;
  }
  double spread() const {
    double low = 100;
    double high = 0;
    for (auto const& server : servers_) {
      if (!server.usable) continue;
      low = std::min(low, percent_full(server));
      high = std::max(high, percent_full(server));
    }
    return high - low;
  }
  std::size_t below_norm() const { return degraded_.size(); }
  Passes take_passes() { return std::exchange(passes_, {}); }
  std::uint64_t take_syncs() { return std::exchange(syncs_, 0); }

 private:
  using Replicas = std::array<std::uint16_t, norm + 1>;
  struct Running {
    double end = 0;
    std::uint32_t chunk = 0;
    std::uint16_t to = 0;
    bool operator>(Running const& other) const { return end > other.end; }
  };

  bool is_complete(std::uint32_t chunk) const {
    auto const& replicas = chunks_[chunk];
    return std::count(replicas.begin(), replicas.end(), nobody) <= 1;
  }
  static std::uint16_t index_of(Cs_id cs) {
    return static_cast<std::uint16_t>(cs.value - first_cs);
  }
  void fill() {
    chunks_.resize(options_.chunks);
    for (std::uint32_t i = 0; i < chunks_.size(); ++i) {
      auto& replicas = chunks_[i];
      replicas.fill(nobody);
      for (std::size_t n = 0; n < norm;) {
        auto const server = static_cast<std::uint16_t>(random_.below(servers_.size()));
        bool const is_taken = std::any_of(replicas.begin(), replicas.begin() + n, [&](auto other) {
          return servers_[other].host == servers_[server].host;
        });
        if (is_taken) continue;
        replicas[n++] = server;
        on_server_[server].push_back(i);
      }
    }
    refresh();
  }
  bool drop(std::uint32_t chunk, std::uint16_t server) {
    auto& replicas = chunks_[chunk];
    auto const found = std::find(replicas.begin(), replicas.end(), server);
    if (found == replicas.end()) return false;  // an old entry of on_server_
    *found = nobody;
    return true;
  }
  void refresh() {
    for (std::size_t i = 0; i < servers_.size(); ++i) refresh_one(i);
  }
  void refresh_one(std::size_t i) {
    auto const replicas = static_cast<std::uint32_t>(on_server_[i].size());
    servers_[i].free_bytes =
        servers_[i].total_bytes - std::min(servers_[i].total_bytes, replicas * chunk_bytes);
    loads_[servers_[i].cs].replicas = replicas;
  }
  Needy_chunk needy(std::uint32_t chunk) const {
    Needy_chunk one;
    one.chunk = Chunk_id{chunk + 1};
    one.norm = norm;
    one.chunk_bytes = chunk_bytes;
    for (auto const server : chunks_[chunk]) {
      if (server != nobody) one.in_sync.push_back(servers_[server].cs);
    }
    if (syncing_.contains(chunk)) one.syncing.push_back(Cs_id{syncing_.at(chunk)});
    return one;
  }
  std::vector<Needy_chunk> chunks_on(Cs_id cs) {
    auto const server = index_of(cs);
    auto const& list = on_server_[server];
    std::vector<Needy_chunk> found;
    for (std::size_t i = 0; i < std::min(balance_batch, list.size()); ++i) {
      auto& cursor = cursor_[server];
      if (cursor >= list.size()) cursor = 0;
      found.push_back(needy(list[cursor++]));
    }
    return found;
  }

  bool pass() {
    auto const begin = std::chrono::steady_clock::now();
    Servers const servers(servers_);
    Recovery_limits limits;
    limits.syncs_total = std::max(limits.syncs_total, static_cast<std::uint32_t>(servers_.size()));
    Sync_slots slots(busy_, limits);
    bool did = remove_surplus(servers);
    std::vector<Needy_chunk> chunks;
    for (auto left = degraded_.size(); left != 0 && chunks.size() < batch; --left) {
      auto const chunk = degraded_.front();
      degraded_.pop_front();
      if (is_complete(chunk)) continue;
      degraded_.push_back(chunk);
      chunks.push_back(needy(chunk));
    }
    bool const has_needy = !chunks.empty();
    if (!slots.is_full()) plan_recovery(std::move(chunks), servers, slots, {}, 2, random_);
    if (!has_needy && now_ - last_balance_ >= balance_seconds) {
      last_balance_ = now_;
      auto const known = moves_.size();
      plan_balance(
          0, servers, loads_, [this](Cs_id cs) { return chunks_on(cs); }, slots, {}, moves_);
      did = did || moves_.size() != known;
    }
    auto const choices = slots.take_choices();
    auto const taken =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    ++passes_.count;
    passes_.seconds += taken;
    passes_.longest = std::max(passes_.longest, taken);
    for (auto const& choice : choices) start(choice);
    return did || !choices.empty() || has_needy;
  }
  void start(Sync_choice const& choice) {
    auto const chunk = static_cast<std::uint32_t>(choice.chunk.value - 1);
    if (!syncing_.emplace(chunk, choice.cs.value).second) return;
    auto const pulls = ++busy_[choice.cs];
    running_.push({now_ + pulls * chunk_bytes / bytes_a_second, chunk, index_of(choice.cs)});
  }
  void finish_syncs() {
    while (!running_.empty() && running_.top().end <= now_) {
      auto const done = running_.top();
      running_.pop();
      auto const cs = servers_[done.to].cs;
      if (--busy_[cs] == 0) busy_.erase(cs);
      syncing_.erase(done.chunk);
      auto& replicas = chunks_[done.chunk];
      *std::find(replicas.begin(), replicas.end(), nobody) = done.to;
      on_server_[done.to].push_back(done.chunk);
      refresh_one(done.to);
      ++syncs_;
      std::erase_if(moves_, [&](Move const& move) { return move.chunk.value == done.chunk + 1; });
      if (std::count(replicas.begin(), replicas.end(), nobody) == 0) surplus_.push_back(done.chunk);
    }
  }
  bool remove_surplus(Servers const& servers) {
    std::vector<Needy_chunk> chunks;
    for (auto const chunk : std::exchange(surplus_, {})) chunks.push_back(needy(chunk));
    auto const removals = plan_removals(chunks, servers);
    for (auto const& removal : removals) {
      auto const chunk = static_cast<std::uint32_t>(removal.chunk.value - 1);
      for (auto const cs : removal.servers) {
        drop(chunk, index_of(cs));
        auto& list = on_server_[index_of(cs)];
        auto const found = std::find(list.begin(), list.end(), chunk);
        if (found != list.end()) {
          *found = list.back();
          list.pop_back();
        }
        refresh_one(index_of(cs));
      }
    }
    return !removals.empty();
  }

  Options options_;
  Test_random random_{7};
  std::uint64_t total_bytes_ = 0;
  std::vector<Candidate> servers_;
  std::vector<Replicas> chunks_;
  std::vector<std::vector<std::uint32_t>> on_server_;
  std::vector<std::size_t> cursor_;
  std::map<Cs_id, Server_load> loads_;
  std::deque<std::uint32_t> degraded_;
  std::vector<std::uint32_t> surplus_;
  std::map<Cs_id, std::uint32_t> busy_;
  std::map<std::uint32_t, std::uint32_t> syncing_;
  std::priority_queue<Running, std::vector<Running>, std::greater<>> running_;
  std::vector<Move> moves_;
  Passes passes_;
  std::uint64_t syncs_ = 0;
  double now_ = 0;
  double last_balance_ = 0;
};

void print(char const* what, World& world, double hours, double spread_before) {
  auto const passes = world.take_passes();
  std::printf("| %s | %llu | %.1f | %llu | %.2f / %.1f | %.1f -> %.1f |\n", what,
              static_cast<unsigned long long>(world.take_syncs()), hours,
              static_cast<unsigned long long>(passes.count),
              passes.seconds / static_cast<double>(std::max<std::uint64_t>(passes.count, 1)) * 1e3,
              passes.longest * 1e3, spread_before, world.spread());
  std::fflush(stdout);
}

int run(Options const& options) {
  World world(options);
  std::printf(
      "| %zu servers, %zu chunks x 3 | copies | virtual hours | passes | ms a pass, mean / "
      "longest | spread of percent-full |\n| --- | --- | --- | --- | --- | --- |\n",
      options.servers, options.chunks);
  auto before = world.spread();
  auto seconds = world.settle();
  print("nothing happens", world, seconds / 3600, before);
  before = world.spread();
  auto const lost = world.lose_host(1);
  seconds = world.settle();
  print(("a host of " + std::to_string(options.servers_a_host) + " is lost, " +
         std::to_string(lost) + " replicas")
            .c_str(),
        world, seconds / 3600, before);
  for (std::size_t i = 0; i < options.added; ++i) world.add_server();
  before = world.spread();
  seconds = world.settle();
  print((std::to_string(options.added) + " empty servers are added").c_str(), world, seconds / 3600,
        before);
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  std::printf("\nmemory of the simulation: %ld MB; chunks below the norm at the end: %zu\n",
              usage.ru_maxrss / 1024, world.below_norm());
  return world.below_norm() == 0 ? 0 : 1;
}

}  // namespace
}  // namespace pstorage::mds

int main(int argc, char** argv) {
  pstorage::mds::Options options;
  CLI::App app("The recovery planner at scale.");
  app.add_option("--servers", options.servers, "Chunk servers")->check(CLI::Range(10, 60000));
  app.add_option("--chunks", options.chunks, "Chunks")->check(CLI::Range(1000, 100'000'000));
  app.add_option("--added", options.added, "Empty servers added at the end");
  CLI11_PARSE(app, argc, argv);
  return pstorage::mds::run(options);
}
