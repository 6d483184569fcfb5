#include "cs/scrubber.h"

#include <algorithm>
#include <cstring>

namespace pstorage::cs {
namespace {

constexpr std::uint32_t window_bytes = 256u << 10;
// Then the loop gets its turn: what is in the page cache is read in the call itself.
constexpr std::uint32_t windows_a_tick = 16;
// Slack against chunks that grow, and for the idle: a round need not take its whole period.
constexpr double busy_share = 1.2;
constexpr double idle_share = 4;
// Not more than this at a time after a pause, or a server that wakes up would read all at once.
constexpr double allowance_seconds_max = 2;
constexpr double rate_min = 64 << 10;  // bytes a second: small repositories are done early

}  // namespace

void Scrub_pacer::set(Duration period, std::uint64_t bytes) {
  auto const seconds = std::chrono::duration<double>(period).count();
  rate_ = seconds <= 0 || bytes == 0 ? 0 : std::max(static_cast<double>(bytes) / seconds, rate_min);
}

void Scrub_pacer::advance(Duration time, bool is_busy) {
  auto const seconds = std::chrono::duration<double>(time).count();
  auto const most = std::max(rate_ * allowance_seconds_max, 2.0 * window_bytes);
  allowance_ = std::min(allowance_ + seconds * rate_ * (is_busy ? busy_share : idle_share), most);
}

Scrubber::Scrubber(Clock& clock, Random& random, Store& store, Report report)
    : clock_(clock), random_(random), store_(store), report_(std::move(report)) {}

void Scrubber::on_tick(bool is_busy) {
  auto const now = clock_.now();
  auto const passed = now - std::exchange(last_tick_, now);
  for (auto const& pass : std::exchange(checks_, {})) {
    pass->streak = 0;
    read_next(pass);
  }
  if (period_ <= Duration{0} || store_.chunk_count() == 0) return;
  if (!std::exchange(started_, true)) return;
  auto const used = store_.space().total_bytes - store_.space().free_bytes;
  pacer_.set(period_, used);
  pacer_.advance(passed, is_busy);
  if (!pacer_.may_read(window_bytes)) return;
  if (!own_) return next_chunk();
  if (!std::exchange(waits_, false)) return;
  own_->streak = 0;
  read_next(own_);
}

/// Chunks in the order of their ids, from anywhere: servers are restarted more often than a period
/// lasts, and the same chunks must not always be the last.
void Scrubber::next_chunk() {
  auto const& names = store_.names();
  if (names.empty()) return;
  if (!cursor_) {
    auto const skipped = static_cast<std::ptrdiff_t>(random_.below(names.size()));
    cursor_ = *std::next(names.begin(), skipped);
  }
  auto found = names.lower_bound(cursor_);
  if (found == names.end()) {
    ++rounds_;
    found = names.begin();
  }
  cursor_ = Chunk_id{found->value + 1};
  own_ = std::make_shared<Pass>();
  own_->chunk = *found;
  read_next(own_);
}

void Scrubber::check(Chunk_id chunk, std::function<void(Errc, std::vector<std::uint32_t>)> done) {
  auto pass = std::make_shared<Pass>();
  pass->chunk = chunk;
  pass->done = std::move(done);
  read_next(pass);
}

void Scrubber::read_next(std::shared_ptr<Pass> const& pass) {
  auto const loaded = store_.load(pass->chunk);
  if (loaded.has_error()) return finish(*pass, errc_of(loaded.error()));
  auto const size = loaded.value()->replica.chunk_size;
  if (pass->offset >= size) return finish(*pass, Errc::ok);
  auto const length = std::min(window_bytes, size - pass->offset);
  store_.read_async(pass->chunk, Read_kind::pull, pass->offset, length,
                    [this, pass, length, alive = std::weak_ptr<bool>(alive_)](Read_result& result) {
                      if (!alive.expired()) read_done(pass, length, result);
                    });
}

void Scrubber::read_done(std::shared_ptr<Pass> const& pass, std::uint32_t length,
                         Read_result& result) {
  if (result.status != Errc::ok) return finish(*pass, result.status);
  for (std::uint32_t i = 0; i < result.meta.size() / sizeof(Block_record); ++i) {
    auto const record = load_le<Block_record>(result.meta.data() + i * sizeof(Block_record));
    if ((record.flags & block_corrupt) != 0) pass->bad.push_back(pass->offset / block_bytes + i);
  }
  pass->offset += length;
  scrubbed_bytes_ += result.data.size();
  if (pass == own_) {
    // Holes cost next to nothing.
    pacer_.took(std::max<std::uint64_t>(result.data.size(), block_bytes));
    waits_ = !pacer_.may_read(window_bytes) || ++pass->streak == windows_a_tick;
    if (waits_) return;
  } else if (++pass->streak == windows_a_tick) {
    checks_.push_back(pass);
    return;
  }
  read_next(pass);
}

void Scrubber::finish(Pass& pass, Errc status) {
  errors_ += pass.bad.size() + (status == Errc::corrupt ? 1 : 0);  // or its header
  if (pass.done) return pass.done(status, pass.bad);
  if (!pass.bad.empty()) report_(pass.chunk, pass.bad);
  own_.reset();
}

}  // namespace pstorage::cs
