// Random operations against a model, with power loss, kills and crashes during recovery.
#include <map>
#include <set>

#include "tests/cs/seeds.h"
#include "tests/cs/sim_store.h"

namespace pstorage::cs {
namespace {

constexpr std::uint32_t chunk_blocks = 512;  // two pages
constexpr std::uint32_t blocks_used = 96;    // around the border of the pages: collisions wanted
constexpr std::uint32_t first_used = 256 - blocks_used / 2;
constexpr File_id file{7};

struct Content {
  std::uint64_t stamp = 0;
  bool is_zero = true;
  bool is_large = false;
  bool from_writer = false;
  bool acknowledged = true;  // large writes are not at once
  bool operator==(Content const&) const = default;
};

/// What a block may hold: history[0] is certain, the later ones were submitted after it.
struct Block_model {
  std::vector<Content> history{Content{}};
};

struct Chunk_model {
  std::map<std::uint32_t, Block_model> blocks;
  bool alive = false;
  bool maybe_alive = false;  // created, not flushed since
  std::uint64_t flushed_stamp = 0;
  std::uint64_t last_stamp = 0;
  std::uint64_t acked_stamp = 0;  // up to here everything has been acknowledged
};

class Crash_run {
 public:
  explicit Crash_run(std::uint64_t seed)
      : random_(seed * 77 + 5),
        world_(seed, {.would_block_percent = static_cast<unsigned>(seed % 3 * 20)},
               (seed % 4 + 2) * (256u << 10)) {
    world_.options.chunks.table_bytes_max = 2 * page_bytes;
    world_.options.chunks.open_files_max = 2;
    if (seed % 2 == 0) world_.options.idle_after = std::chrono::milliseconds(50);
    if (seed % 5 == 0) world_.options.commit_interval = std::chrono::milliseconds(20);
  }

  void run() {
    world_.must_start();
    std::uint64_t const rounds = 2 + random_.below(5);
    for (std::uint64_t round = 0; round < rounds && !testing::Test::HasFailure(); ++round) {
      std::uint64_t const operations = 1 + random_.below(120);
      for (std::uint64_t i = 0; i < operations && !testing::Test::HasFailure(); ++i) step();
      end_life();
    }
  }

 private:
  Chunk_id pick() { return {1 + random_.below(3)}; }

  void step() {
    switch (random_.below(14)) {
      case 0:
        return flush();
      case 1:
        return zero();
      case 2:
        return repair();
      case 3:
        return world_.run(tick_interval * static_cast<long>(1 + random_.below(30)));
      case 4:
        return check_some();
      case 5:
        return seal();
      case 6:
        return random_.below(4) == 0 ? remove() : flush();
      case 7:
      case 8:
        return write(17 + static_cast<std::uint32_t>(random_.below(30)));
      default:
        return write(1 + static_cast<std::uint32_t>(random_.below(8)));
    }
  }

  Chunk& need_chunk(Chunk_id id) {
    Chunk_model& model = models_[id];
    if (!model.alive) {
      model = Chunk_model{};
      for (int i = 0; i < 200 && world_.store->find(id) == nullptr; ++i) {
        if (world_.store->create(id, file, chunk_blocks * block_bytes, {1}).has_value()) break;
        world_.run(tick_interval);
      }
      model.alive = true;
    }
    auto const loaded = world_.store->load(id);
    EXPECT_TRUE(loaded.has_value()) << "chunk " << id.value;
    return *loaded.value();
  }
  std::uint32_t place(std::uint32_t& blocks) {
    blocks = std::min(blocks, blocks_used);
    return first_used + static_cast<std::uint32_t>(random_.below(blocks_used - blocks + 1));
  }
  void room(std::size_t bytes) {
    for (int i = 0; i < 1000 && !world_.store->has_room(bytes); ++i) world_.run(tick_interval);
    ASSERT_TRUE(world_.store->has_room(bytes));
  }
  void submitted(Chunk_id id, std::uint32_t first, std::uint32_t blocks, Content const& content) {
    for (std::uint32_t i = 0; i < blocks; ++i) {
      models_[id].blocks[first + i].history.push_back(content);
    }
    if (!content.from_writer) return;
    models_[id].last_stamp = content.stamp;
    if (content.acknowledged) models_[id].acked_stamp = content.stamp;
  }

  void write(std::uint32_t blocks) {
    Chunk_id const id = pick();
    Chunk& chunk = need_chunk(id);
    std::uint32_t const first = place(blocks);
    room(std::size_t{blocks} * block_bytes);
    std::uint64_t const stamp = Stamp::of({1}, ++sequence_).value;
    auto const made = test_data(stamp, first, blocks);
    bool const behind_large = chunk.large_lsn > world_.store->large_done();
    auto const [lsn, large] =
        world_.store->write(chunk, first * block_bytes, made.crcs, made.data, {stamp});
    submitted(id, first, blocks, {stamp, false, large, true, !large && !behind_large});
    if (random_.below(4) != 0) end_turn();
    if (!large || random_.below(3) == 0) return;
    for (int i = 0; i < 500 && world_.store->large_done() < lsn; ++i) world_.run(tick_interval);
    ASSERT_GE(world_.store->large_done(), lsn);
    for (std::uint32_t i = 0; i < blocks; ++i) {
      models_[id].blocks[first + i].history.back().acknowledged = true;
    }
    models_[id].acked_stamp = stamp;
  }
  void zero() {
    Chunk_id const id = pick();
    Chunk& chunk = need_chunk(id);
    auto blocks = static_cast<std::uint32_t>(1 + random_.below(40));
    std::uint32_t const first = place(blocks);
    room(0);
    std::uint64_t const stamp = Stamp::of({1}, ++sequence_).value;
    bool const behind_large = chunk.large_lsn > world_.store->large_done();
    world_.store->zero(chunk, first * block_bytes, blocks * block_bytes, {stamp});
    submitted(id, first, blocks, {stamp, true, false, true, !behind_large});
  }
  // Stamps of a repair may be lower than what the block has; unique all the same, for the model.
  void repair() {
    Chunk_id const id = pick();
    Chunk& chunk = need_chunk(id);
    auto blocks = static_cast<std::uint32_t>(1 + random_.below(30));
    std::uint32_t const first = place(blocks);
    room(std::size_t{blocks} * block_bytes);
    std::uint64_t const stamp = ++repair_stamp_;
    auto const made = test_data(stamp, first, blocks);
    std::vector<Block_record> records(blocks);
    for (std::uint32_t i = 0; i < blocks; ++i) {
      records[i] = {stamp, load_le<std::uint32_t>(made.crcs.data() + i * 4), 0};
    }
    bool const large = world_.store->repair(chunk, first * block_bytes, records, made.data).large;
    submitted(id, first, blocks, {stamp, false, large, false, !large});
  }
  void end_turn() { ASSERT_EQ(world_.store->end_turn(), Errc::ok); }
  void flush() {
    if (random_.below(6) == 0) {  // not waited for: nothing is promised
      world_.store->flush(file, [](Errc) {});
      return end_turn();
    }
    Errc result = Errc::timed_out;
    world_.store->flush(file, [&](Errc done) { result = done; });
    for (int i = 0; i < 500 && result == Errc::timed_out; ++i) world_.run(tick_interval);
    ASSERT_EQ(result, Errc::ok);
    for (auto& [id, model] : models_) {
      for (auto& [block, state] : model.blocks) {
        state.history.erase(state.history.begin(), state.history.end() - 1);
      }
      model.flushed_stamp = model.acked_stamp = model.last_stamp;
    }
    for (auto& [file_id, epoch] : seals_) flushed_seals_[file_id] = epoch;
  }
  void seal() {
    File_id const id{1 + random_.below(4)};
    Epoch const epoch{seals_[id].value + 1};
    seals_[id] = epoch;
    Errc result = Errc::timed_out;
    room(0);
    world_.store->seal(id, epoch, [&](Errc done) { result = done; });
    for (int i = 0; i < 500 && result == Errc::timed_out; ++i) world_.run(tick_interval);
    ASSERT_EQ(result, Errc::ok);
    flushed_seals_[id] = epoch;
  }
  void remove() {
    Chunk_id const id = pick();
    if (!models_[id].alive) return;
    Errc result = Errc::timed_out;
    room(0);
    world_.store->remove(id, [&](Errc done) { result = done; });
    for (int i = 0; i < 500 && result == Errc::timed_out; ++i) world_.run(tick_interval);
    ASSERT_EQ(result, Errc::ok);
    models_[id] = Chunk_model{};
    ASSERT_TRUE(world_.store->load(id).has_error());
  }

  void check_some() {
    Chunk_id const id = pick();
    if (!models_[id].alive) return;
    std::uint32_t blocks = 24;
    std::uint32_t const first = place(blocks);
    for (std::uint32_t i = 0; i < blocks; ++i) {
      Content const& newest = models_[id].blocks[first + i].history.back();
      ASSERT_TRUE(world_.holds(id, first + i, newest.is_zero ? 0 : newest.stamp))
          << "chunk " << id.value << " block " << first + i << " stamp " << newest.stamp;
    }
  }

  void end_life() {
    auto const fate = random_.below(10);
    if (fate == 0) {
      ASSERT_EQ(world_.stop(), Errc::ok);
      world_.die(random_.below(2) == 0);
      restart(false);
      return;
    }
    bool power_loss = fate < 8;
    // What a kill keeps is what was acknowledged.
    if (!power_loss) end_turn();
    world_.die(power_loss);
    while (random_.below(2) == 0) {
      bool const again = random_.below(2) == 0;
      if (!crash_during_recovery(again)) continue;
      power_loss = power_loss || again;
    }
    restart(power_loss);
  }

  // The process or the machine dies somewhere on the way. False: recovery came through before.
  bool crash_during_recovery(bool power_loss) {
    std::uint64_t left = random_.below(60);
    world_.disk.set_fault(
        [&](sim::Disk_call, std::string const&) -> std::optional<std::error_code> {
          if (left == 0) return std::error_code(EIO, std::system_category());
          --left;
          return std::nullopt;
        });
    auto const started = world_.start();
    world_.disk.set_fault(nullptr);
    bool const died = started.has_error();
    world_.die(died && power_loss);
    return died;
  }

  void restart(bool power_loss) {
    world_.must_start();
    if (testing::Test::HasFailure()) return;
    for (auto const& [id, epoch] : flushed_seals_) {
      ASSERT_GE(world_.store->seal_of(id), epoch);
      seals_[id] = world_.store->seal_of(id);
    }
    for (auto& [id, model] : models_) check_chunk(id, model, power_loss);
  }

  void check_chunk(Chunk_id id, Chunk_model& model, bool power_loss) {
    auto const loaded = world_.store->load(id);
    if (!model.alive) {
      ASSERT_TRUE(loaded.has_error()) << "chunk " << id.value << " came back";
      return;
    }
    if (loaded.has_error()) {
      ASSERT_TRUE(power_loss && model.flushed_stamp == 0) << "chunk " << id.value << " is gone";
      for (auto const& [block, state] : model.blocks) ASSERT_EQ(state.history.front(), Content{});
      model = Chunk_model{};
      return;
    }
    Replica const& replica = loaded.value()->replica;
    std::uint64_t const last = replica.last_stamp.value;
    ASSERT_GE(last, power_loss ? model.flushed_stamp : model.acked_stamp) << "chunk " << id.value;
    for (auto& [block, state] : model.blocks) {
      check_block(id, block, state, power_loss, last);
      if (testing::Test::HasFatalFailure()) return;
    }
    model.last_stamp = model.acked_stamp = model.flushed_stamp = last;
  }

  void check_block(Chunk_id id, std::uint32_t block, Block_model& state, bool power_loss,
                   std::uint64_t last) {
    Read_result const found = world_.read(id, block, 1);
    Block_record const record = world_.store->block_record(*world_.store->find(id), block);
    std::string const where = "chunk " + std::to_string(id.value) + " block " +
                              std::to_string(block) + " stamp " + std::to_string(record.stamp);
    auto& history = state.history;
    if (found.status == Errc::corrupt) {
      bool torn = false;
      for (std::size_t i = 1; i < history.size(); ++i) torn = torn || history[i].is_large;
      ASSERT_TRUE(power_loss && torn)
          << where << " is corrupt:" << show(history) << " " << power_loss;
      for (Content const& one : history) {
        bool const is_torn = one.stamp == record.stamp && one.from_writer;
        ASSERT_FALSE(is_torn && one.stamp <= last) << where << " is torn, last " << last;
      }
      history.assign(1, heal(id, block));
      return;
    }
    ASSERT_EQ(found.status, Errc::ok) << where;
    std::size_t match = history.size();
    for (std::size_t i = 0; i < history.size(); ++i) {
      if (history[i].stamp == record.stamp) match = i;
    }
    ASSERT_LT(match, history.size())
        << where << " is none of the submitted ones: " << show(history);
    Content const content = history[match];
    ASSERT_TRUE(world_.holds(id, block, content.is_zero ? 0 : content.stamp)) << where;
    for (std::size_t i = match + 1; i < history.size() && !power_loss; ++i) {
      ASSERT_FALSE(history[i].acknowledged) << where << " lost an acknowledged write";
    }
    // Everything up to the last stamp is there: a living writer tells by it what was lost.
    for (std::size_t i = match + 1; i < history.size(); ++i) {
      ASSERT_FALSE(history[i].from_writer && history[i].stamp <= last)
          << where << " has a gap:" << show(history) << " last " << last;
    }
    history.assign(1, content);
  }

  static std::string show(std::vector<Content> const& history) {
    std::string text;
    for (Content const& one : history) {
      text += " " + std::to_string(one.stamp) + (one.is_zero ? "z" : "") +
              (one.is_large ? "l" : "") + (one.acknowledged ? "a" : "");
    }
    return text;
  }

  Content heal(Chunk_id id, std::uint32_t block) {
    std::uint64_t const stamp = ++repair_stamp_;
    auto const made = test_data(stamp, block, 1);
    Block_record const record{stamp, load_le<std::uint32_t>(made.crcs.data()), 0};
    room(block_bytes);
    world_.store->repair(*world_.store->find(id), block * block_bytes, {&record, 1}, made.data);
    EXPECT_EQ(world_.flush(file), Errc::ok);
    EXPECT_TRUE(world_.holds(id, block, stamp));
    return {stamp, false, false, false, true};
  }

  Seeded_random random_;
  Sim_store world_;
  std::map<Chunk_id, Chunk_model> models_;
  std::map<File_id, Epoch> seals_;
  std::map<File_id, Epoch> flushed_seals_;
  std::uint32_t sequence_ = 0;
  std::uint64_t repair_stamp_ = 0;
};

TEST(Store_crash, Flushed_writes_survive_and_the_others_are_old_or_new) {
  for (std::uint64_t seed = seeds().first; seed < seeds().first + seeds().count; ++seed) {
    Crash_run run(seed);
    run.run();
    if (HasFailure()) {
      FAIL() << "seed " << seed << ": rerun with --seed " << seed;
    }
  }
}

}  // namespace
}  // namespace pstorage::cs
