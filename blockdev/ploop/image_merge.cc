// Ploop_image: the delta below the top goes. What only it has is copied into the top, under load;
// then it is taken out of the chain.
#include <algorithm>

#include "blockdev/ploop/ploop_image.h"
#include "core/mutant.h"

namespace pstorage::ploop {
namespace {

// Few: requests of clients share the store with them. More than one: they share flushes.
constexpr unsigned copies_max = 4;

}  // namespace

struct Ploop_image::Copy_run {
  std::uint32_t next = 0;
  std::uint32_t end = 0;
  unsigned under_way = 0;
  Result<void> result = success();
  Done done;
};

void Ploop_image::copy_up_from_below(std::uint32_t first, std::uint32_t count, Done done) {
  PS_ASSERT(is_writable_ && !closing_ && !switch_ && top_level_ > 0);
  auto const run = std::make_shared<Copy_run>();
  run->next = std::min(first, map_.size());
  run->end = run->next + std::min(count, map_.size() - run->next);
  run->done = std::move(done);
  // Never from inside this call.
  answer([this, run](Result<void> const&) { advance_copies(run); }, success());
}

void Ploop_image::advance_copies(std::shared_ptr<Copy_run> const& run) {
  if (run->result && broken_) run->result = broken_;
  if (run->result && closing_) run->result = Errc::closed;
  while (run->result && run->next < run->end && run->under_way < copies_max) {
    auto const index = run->next++;
    if (!is_below_top(index)) continue;
    ++run->under_way;
    copy_one(run, index);
  }
  if (run->under_way == 0) run->done(run->result);
}

/// Whoever makes the cluster busy first goes first. A client's write brings it into the top, too:
/// then there is nothing left to copy, and nothing older can come over what it wrote.
void Ploop_image::copy_one(std::shared_ptr<Copy_run> const& run, std::uint32_t index) {
  auto const copied = [this, run](Result<void> const& result) {
    --run->under_way;
    if (!result && run->result) run->result = result;
    advance_copies(run);
  };
  if (map_.is_busy(index)) return wait_for(index, [this, run, index] { copy_one(run, index); });
  if (!is_below_top(index) || broken_)
    return answer(copied, broken_ ? Result<void>(broken_) : success());
  auto whole = run_at(std::uint64_t{index} << cluster_shift_, size_);
  whole.length = 0;  // no bytes of a request go into the copy
  start_allocation(whole, {}, false, copied);
}

void Ploop_image::drop_layer_below(Commit commit, Done done) {
  PS_ASSERT(is_writable_ && !closing_ && !switch_ && busy_.empty() && top_level_ > 0);
  if (broken_) return answer(std::move(done), broken_);
  for (std::uint32_t index = 0; index < map_.size(); ++index)
    if (is_below_top(index)) return answer(std::move(done), Errc::refused);
  auto const durable = [this, commit = std::move(commit),
                        done = std::move(done)](Result<void> const& result) {
    if (!result) return done(result);
    commit([this, done](Result<void> const& committed) {
      if (!committed) return done(committed);
      layer_dropped(done);
    });
  };
  // The old chain is right with or without the new entries; the new one only with all of them.
  if (PS_MUTANT(delta_dropped_before_its_copies_are_durable)) return answer(durable, success());
  barrier_.wait(durable);
}

void Ploop_image::layer_dropped(Done const& done) {
  auto const below = static_cast<Level>(top_level_ - 1);
  for (std::uint32_t index = 0; index < map_.size(); ++index)
    if (map_.level(index) == top_level_) map_.set(index, below, map_.cluster(index));
  auto const gone = std::make_shared<Layer>(std::move(layers_[below]));
  layers_.erase(layers_.begin() + below);
  top_level_ = below;
  // Nobody needs its content any more, whether it closes well or not.
  gone->store->close([this, gone, done](Result<void> const&) {
    executor_.defer([gone] {});
    done(success());
  });
}

}  // namespace pstorage::ploop
