#include "tests/sim/sim_client.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/client/file_volume.h"

namespace pstorage::sim {
namespace {

constexpr std::size_t words = block_bytes / sizeof(std::uint64_t);

}  // namespace

void fill_block(std::byte* to, std::uint64_t value) {
  for (std::size_t i = 0; i < words; ++i)
    store_le(to + i * sizeof value, value == 0 ? 0 : value * 0x9e3779b97f4a7c15ULL + i);
  if (value != 0) store_le(to, value);
}

std::optional<std::uint64_t> block_value(std::byte const* from) {
  auto const value = load_le<std::uint64_t>(from);
  for (std::size_t i = 1; i < words; ++i) {
    std::uint64_t const expected = value == 0 ? 0 : value * 0x9e3779b97f4a7c15ULL + i;
    if (load_le<std::uint64_t>(from + i * sizeof value) != expected) return std::nullopt;
  }
  return value;
}

std::string Ledger::tell(Block_history const& history) {
  std::map<Moment, std::string> lines;
  auto const seconds = [](Moment moment) {
    return moment == never ? std::string("never")
                           : std::to_string(static_cast<double>(moment) / 1e9);
  };
  for (Block_write const& write : history.writes)
    lines[write.start] += (write.is_zero ? "zero" : "write " + std::to_string(write.value)) +
                          " epoch " + std::to_string(write.epoch) + " from " +
                          seconds(write.start) + " to " + seconds(write.finish) + " durable " +
                          seconds(write.durable) + "\n";
  for (Block_read const& read : history.reads)
    lines[read.start] += "read " + std::to_string(read.value) + " from " + seconds(read.start) +
                         " to " + seconds(read.finish) + "\n";
  std::string text;
  for (auto const& [_, line] : lines) text += line;
  return text;
}

void Ledger::taken(std::uint32_t epoch, Moment when) {
  if (epoch <= taken_epoch_) return;
  taken_epoch_ = epoch;
  taken_at_ = when;
}

void Ledger::losses_found(Moment when) {
  constexpr Moment latest = 10'000'000'000;  // by then a dead server's session has ended
  constexpr Moment together = 2'000'000'000;
  if (power_losses_.empty() || last_left_ == never) return;
  bool const had_left = last_left_ > last_power_loss_ - together;
  if (had_left && when - last_power_loss_ < latest) power_losses_.push_back(when);
}

void Ledger::acknowledged(std::uint32_t epoch, Moment start) {
  if (epoch < taken_epoch_ && start > taken_at_)
    fault("a write of epoch " + std::to_string(epoch) + " was acknowledged after the volume was " +
          "taken over under epoch " + std::to_string(taken_epoch_));
}

void Ledger::torn_read(std::size_t block) {
  auto const may_be_torn = [&](Block_write const& write) {
    return std::any_of(power_losses_.begin(), power_losses_.end(), [&](Moment power_loss) {
      return write.start <= power_loss && write.durable > power_loss;
    });
  };
  auto const& writes = blocks_[block].writes;
  if (std::none_of(writes.begin(), writes.end(), may_be_torn))
    fault("block " + std::to_string(block) + " is torn");
}

std::string Ledger::check() const {
  if (!fault_.empty()) return fault_;
  for (std::size_t i = 0; i < blocks_.size(); ++i)
    if (auto fault = check_block(blocks_[i], power_losses_); !fault.empty())
      return "block " + std::to_string(i) + ": " + fault + (verbose ? "\n" + tell(blocks_[i]) : "");
  return {};
}

Sim_client::Sim_client(Sim_world& world, Sim_node& node, Ledger& ledger,
                       std::vector<Address> servers, Sim_client_options options)
    : world_(world),
      node_(node),
      ledger_(ledger),
      servers_(std::move(servers)),
      options_(std::move(options)) {}

Sim_client::~Sim_client() {
  if (is_running()) kill(true);
}

void Sim_client::start() {
  ++life_;
  client::Cluster_options options;
  options.session.servers = servers_;
  options.session.name = node_.name();
  options.session.host = node_.host();
  cluster_ = std::make_unique<client::Cluster>(node_, node_, world_.random(), world_, node_,
                                               std::move(options));
  if (options_.caches) open_cache();
  cluster_->set_wanted_handler([this](proto::Lease_wanted const&) { wanted(); });
  node_.start({cluster_.get(), this});
  open_again_at_ = world_.now();
}

void Sim_client::open_cache() {
  constexpr unsigned power_loss_percent = 30;
  constexpr unsigned miss_percent = 30;
  if (cache_disk_ == nullptr) {
    cache_disk_ = std::make_unique<Sim_disk>(node_, world_.random(),
                                             Sim_disk_options{.would_block_percent = miss_percent});
  } else if (world_.random().percent(power_loss_percent)) {
    ++power_cycle_;
    cache_disk_->crash();
  } else {
    cache_disk_->kill();
  }
  auto file = cache_disk_->open("cache", {.create = true});
  client::Ssd_cache_options options{.cluster_uuid = "simulated",
                                    .boot_id = std::to_string(power_cycle_),
                                    .size_bytes = 128u << 10};
  auto cache = client::Ssd_cache::open(std::move(file).value(), options, world_);
  if (cache.has_error()) return ledger_.fault("no read cache: " + cache.error().text);
  cache_ = std::move(cache).value();
  cluster_->set_read_cache(*cache_);
}

void Sim_client::kill(bool silently) {
  ++life_;
  node_.stop(silently);
  volume_.reset();
  cluster_.reset();
  cache_.reset();
  in_flight_ = 0;
  unflushed_.clear();
  flushes_.clear();
  opening_ = dead_volume_ = giving_back_ = closing_ = must_write_ = only_makes_good_ = false;
}

Duration Sim_client::slowest_flush(Moment from, Moment to) const {
  Moment slowest = 0;
  for (Timed const& flush : flushes_) {
    if (flush.start < from || flush.start > to) continue;
    slowest = std::max(slowest, std::min(flush.finish, now()) - flush.start);
  }
  return Duration(slowest);
}

void Sim_client::close() {
  if (volume_ == nullptr || std::exchange(closing_, true)) return;
  auto const life = life_;
  node_.run([this, life] {
    volume_->close([this, life, covered = std::exchange(unflushed_, {})](Result<void> closed) {
      if (life != life_) return;
      dead_volume_ = true;
      if (closed) note_durable(covered);
    });
  });
}

std::string Sim_client::waiting_reason() const {
  return volume_ != nullptr ? volume_->waiting_reason() : "the volume is not open";
}

bool Sim_client::is_shared() const {
  return volume_ != nullptr && static_cast<client::File_volume const&>(*volume_).is_shared();
}

/// Somebody waits for it: most often it gets it.
void Sim_client::wanted() {
  if (options_.shares && volume_ != nullptr && world_.random().percent(60)) giving_back_ = true;
}

void Sim_client::open() {
  opening_ = true;
  auto const life = life_;
  bool const force = options_.steals || std::exchange(steals_now_, false);
  bool const must_write = std::exchange(must_write_, false);
  only_makes_good_ = options_.shares && must_write && world_.random().percent(50);
  bool const shared = options_.shares && !force && !must_write && world_.random().percent(60);
  cluster_->open(options_.path,
                 {.force = force, .patience = options_.open_patience, .shared = shared},
                 [this, life](Outcome<std::unique_ptr<client::Volume>> outcome) {
                   if (life == life_) opened(std::move(outcome));
                 });
}

void Sim_client::opened(Outcome<std::unique_ptr<client::Volume>> outcome) {
  opening_ = false;
  if (outcome.has_error()) {
    must_write_ = errc_of(outcome.error().code) == Errc::refused;
    open_again_at_ = world_.now() + world_.random().between(std::chrono::milliseconds(200),
                                                            std::chrono::seconds(2));
    return;
  }
  volume_ = std::move(outcome).value();
  auto const& file = static_cast<client::File_volume&>(*volume_);
  epoch_ = file.lease_epoch().value;
  losses_ = 0;
  giving_back_ = std::exchange(only_makes_good_, false);
  if (file.unsealed() != 0) ledger_.left_servers_behind(now());
  if (file.unsealed() == 0 && !file.is_shared()) ledger_.taken(epoch_, now());
  // Time for a former owner that has not noticed.
  if (world_.random().percent(50))
    issue_at_ = world_.now() + world_.random().between(Duration{0}, std::chrono::milliseconds(800));
}

void Sim_client::on_tick() {
  note_losses();
  if (dead_volume_) {
    volume_.reset();
    dead_volume_ = giving_back_ = closing_ = false;
    unflushed_.clear();
    open_again_at_ = world_.now() + world_.random().between(std::chrono::milliseconds(100),
                                                            std::chrono::seconds(3));
  }
  if (volume_ == nullptr) {
    if (!opening_ && !quiescing_ && world_.now() >= open_again_at_) open();
    return;
  }
  if (reading_all_) {
    while (!has_read_all() && in_flight_ < options_.depth && !dead_volume_)
      do_read(next_read_++, 1);
    return;
  }
  if (giving_back_ && in_flight_ == 0) return close();
  if (quiescing_ || giving_back_ || world_.now() < issue_at_) return;
  if (options_.shares && world_.random().percent(1)) giving_back_ = true;
  while (in_flight_ < options_.depth && volume_ != nullptr && !dead_volume_) {
    issue();
    if (world_.random().percent(30)) break;
  }
  if (world_.random().percent(20))
    issue_at_ = world_.now() + world_.random().between(Duration{0}, std::chrono::milliseconds(300));
}

void Sim_client::issue() {
  ++ledger_.operations;
  Sim_random& random = world_.random();
  std::size_t const blocks = ledger_.blocks().size();
  std::size_t const first = random.below(blocks);
  std::size_t const count =
      1 + random.below(std::min<std::size_t>(random.percent(80) ? 4 : 40, blocks - first));
  if (options_.compares && random.percent(4)) return do_compare(first);
  if (is_shared()) return do_read(first, count);
  auto const dice = random.below(100);
  if (dice < 45) return do_write(first, count, random.percent(5));
  if (dice < 50) return do_zero(first, count);
  if (dice < 90) return do_read(first, count);
  do_flush();
  if (random.percent(30)) do_flush();  // it finds nothing, but what the first covers is not durable
}

void Sim_client::note_error(std::error_code error, char const* what) {
  Errc const code = errc_of(error);
  if (code == Errc::stale_epoch || code == Errc::closed) {
    dead_volume_ = true;
    return;
  }
  if (code == Errc::corrupt && options_.rot_allowed) return;
  if (code == Errc::lost_writes) return;
  ledger_.fault(std::string(what) + " answered: " + error.message());
}

void Sim_client::note_losses() {
  if (volume_ == nullptr) return;
  auto const losses = static_cast<client::File_volume&>(*volume_).losses();
  if (std::exchange(losses_, losses) != losses) ledger_.losses_found(now());
}

void Sim_client::written(std::vector<Written> const& done, bool durable) {
  for (Written const& one : done) {
    auto& write = ledger_.blocks()[one.block].writes[one.write];
    write.finish = now();
    // A zero of what was never allocated changes nothing and asks nobody.
    if (!write.is_zero) ledger_.acknowledged(write.epoch, write.start);
    if (durable) write.durable = now();
    if (!durable) unflushed_.push_back(one);
  }
}

void Sim_client::do_write(std::size_t first, std::size_t count, bool fua) {
  Slice data = Slice::allocate(count * block_bytes);
  std::vector<Written> writes;
  for (std::size_t i = 0; i < count; ++i) {
    std::uint64_t const value = ledger_.next_value();
    fill_block(data.data() + i * block_bytes, value);
    auto& block = ledger_.blocks()[first + i];
    writes.push_back({first + i, block.writes.size()});
    block.writes.push_back({.value = value, .epoch = epoch_, .start = now()});
  }
  ++in_flight_;
  volume_->write(first * block_bytes, {std::move(data)}, fua,
                 [this, life = life_, fua, writes = std::move(writes)](Result<void> result) {
                   if (life != life_) return;
                   --in_flight_;
                   if (result.has_error()) return note_error(result.error(), "write");
                   written(writes, fua);
                 });
}

void Sim_client::do_zero(std::size_t first, std::size_t count) {
  std::vector<Written> writes;
  for (std::size_t i = 0; i < count; ++i) {
    auto& block = ledger_.blocks()[first + i];
    writes.push_back({first + i, block.writes.size()});
    block.writes.push_back({.is_zero = true, .epoch = epoch_, .start = now()});
  }
  ++in_flight_;
  volume_->zero(first * block_bytes, count * block_bytes, true, false,
                [this, life = life_, writes = std::move(writes)](Result<void> result) {
                  if (life != life_) return;
                  --in_flight_;
                  if (result.has_error()) return note_error(result.error(), "zero");
                  written(writes, false);
                });
}

void Sim_client::do_read(std::size_t first, std::size_t count) {
  ++in_flight_;
  Moment const start = now();
  volume_->read(first * block_bytes, count * block_bytes,
                [this, life = life_, first, count, start](Result<std::vector<Slice>> result) {
                  if (life != life_) return;
                  --in_flight_;
                  note_losses();
                  if (result.has_error()) return note_error(result.error(), "read");
                  std::vector<std::byte> all;
                  for (Slice const& part : result.value())
                    all.insert(all.end(), part.data(), part.data() + part.size());
                  if (all.size() != count * block_bytes)
                    return ledger_.fault("a read has a wrong length");
                  for (std::size_t i = 0; i < count; ++i) {
                    auto const value = block_value(all.data() + i * block_bytes);
                    if (!value.has_value()) {
                      ledger_.torn_read(first + i);
                      continue;
                    }
                    world_.mix(*value);
                    ledger_.blocks()[first + i].reads.push_back(
                        {.value = *value, .start = start, .finish = now()});
                  }
                });
}

void Sim_client::do_flush() {
  ++in_flight_;
  // All that was answered, also what an earlier one that is still under way covers.
  auto covered = unflushed_;
  auto const timed = flushes_.size();
  flushes_.push_back({.start = now()});
  volume_->flush(
      [this, life = life_, timed, covered = std::move(covered)](Result<void> result) mutable {
        if (life != life_) return;
        --in_flight_;
        flushes_[timed].finish = now();
        // One that failed in between has said so of what it covered, and that once.
        auto const is_told = [&](Written const& one) {
          return std::find(unflushed_.begin(), unflushed_.end(), one) == unflushed_.end();
        };
        std::erase_if(covered, is_told);
        std::erase_if(unflushed_, [&](Written const& one) {
          return std::find(covered.begin(), covered.end(), one) != covered.end();
        });
        if (result.has_error()) return note_error(result.error(), "flush");
        note_durable(covered);
      });
}

void Sim_client::do_compare(std::size_t block) {
  ++in_flight_;
  auto const index = static_cast<std::uint32_t>(block * block_bytes / options_.chunk_bytes);
  cluster_->compare(*volume_, index, [this, life = life_](Result<void> result) {
    if (life != life_) return;
    --in_flight_;
    if (result.has_error()) note_error(result.error(), "compare");
  });
}

void Sim_client::note_durable(std::vector<Written> const& covered) {
  for (Written const& one : covered) ledger_.blocks()[one.block].writes[one.write].durable = now();
}

}  // namespace pstorage::sim
