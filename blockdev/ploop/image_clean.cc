// Ploop_image: from a freed cluster to one that may be used again, and the end.
#include <algorithm>

#include "blockdev/ploop/ploop_image.h"
#include "core/mutant.h"

namespace pstorage::ploop {

/// Requests for the cluster wait: who is told that it is empty may rely on that.
void Ploop_image::free_cluster(std::uint32_t index, bool fua, Done done) {
  auto const cluster = map_.cluster(index);
  map_.clear(index);
  ++counters_.freed;
  auto& allocation = make_busy(index);
  allocation.fua = fua;
  allocation.done = std::move(done);
  allocation.steps_left = 1;
  if (PS_MUTANT(freed_cluster_is_reused_at_once)) space_.give_back(cluster);
  bat_.write_entry(index, [this, index, cluster](Result<void> const& result) {
    if (!result) {
      break_with(result.error());
    } else if (!PS_MUTANT(freed_cluster_is_reused_at_once)) {
      holes_.add(cluster);
      start_cleaning();
    }
    step_done(*busy_.at(index), result);
  });
}

/// Clusters whose cleared entries were written are punched, then all that made durable, then they
/// are free. Should the entry be lost and not the punch, it leads to zeros: what was asked for.
/// What comes meanwhile goes together in the next round.
void Ploop_image::start_cleaning() {
  if (cleaning_ || broken_ || holes_.empty()) return;
  cleaning_ = true;
  auto const runs = std::make_shared<Cluster_runs>(holes_.take_all());
  if (PS_MUTANT(reused_cluster_is_not_zeroed))
    return barrier_.wait([this, runs](Result<void> const& result) { cleaned(*runs, result); });
  punch_from(runs, 0);
}

void Ploop_image::punch_from(std::shared_ptr<Cluster_runs> runs, std::uint32_t start) {
  auto const run = runs->runs().lower_bound(start);
  if (run == runs->runs().end()) {
    if (PS_MUTANT(freed_cluster_is_not_durable_before_reuse)) return cleaned(*runs, success());
    return barrier_.wait([this, runs](Result<void> const& result) { cleaned(*runs, result); });
  }
  auto const [first, length] = *run;
  top().punch(header().offset_of(first), std::uint64_t{length} * cluster_bytes_, false, false,
              [this, runs, next = first + length](Result<void> const& result) mutable {
                if (!result) return cleaned(*runs, result);
                punch_from(std::move(runs), next);
              });
}

/// What could not be cleaned stays unused until the image is opened again.
void Ploop_image::cleaned(Cluster_runs const& runs, Result<void> const& result) {
  cleaning_ = false;
  if (result) space_.add_clean(runs);
  serve_space();
  start_cleaning();
  advance_closing();
}

void Ploop_image::break_with(std::error_code why) {
  if (!broken_) broken_ = why;
}

std::uint32_t Ploop_image::used_end() const {
  auto end = header().first_cluster;
  for (std::uint32_t index = 0; index < map_.size(); ++index)
    if (map_.level(index) == top_level_) end = std::max(end, map_.cluster(index) + 1);
  return end;
}

void Ploop_image::close(Done done) {
  PS_ASSERT(!closing_);
  closing_ = std::move(done);
  if (!is_writable_) return close_stores(0, success());
  // Never from inside this call, and after requests whose answers are on their way.
  answer([this](Result<void> const&) { advance_closing(); }, success());
}

void Ploop_image::advance_closing() {
  if (switch_) advance_switch();
  if (!closing_ || shutting_ || switch_) return;
  if (!busy_.empty() || extending_ || cleaning_ || !bat_.is_idle()) return;
  shutting_ = true;
  close_top([this](Result<void> const& result) { close_stores(0, result); });
}

/// All entries durable before the tail that cleared ones pointed to is cut off; that before the
/// header says "closed". A broken image stays marked as open: the next opening repairs it.
void Ploop_image::close_top(Done done) {
  barrier_.wait([this, done = std::move(done)](Result<void> const& result) {
    if (!result || broken_) return done(result ? Result<void>(broken_) : result);
    auto const end = used_end();
    top().truncate(header().offset_of(end), [this, end, done](Result<void> const& truncated) {
      if (!truncated) return done(truncated);
      auto& last = layers_.back().header;
      last.in_use = in_use_none;
      if (end == last.first_cluster) last.flags |= flag_empty;
      bat_.write_page(0, [this, done](Result<void> const& written) {
        if (!written) return done(written);
        barrier_.wait(done);
      });
    });
  });
}

/// All of them, whatever happened; the first failure is the answer.
void Ploop_image::close_stores(std::size_t level, Result<void> const& result) {
  if (level == layers_.size()) return std::exchange(closing_, nullptr)(result);
  layers_[level].store->close([this, level, result](Result<void> const& closed) {
    close_stores(level + 1, result ? closed : result);
  });
}

}  // namespace pstorage::ploop
