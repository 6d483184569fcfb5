// Ploop_image: clusters on their way into the top.
#include <algorithm>
#include <limits>

#include "blockdev/ploop/ploop_image.h"
#include "blockdev/ploop/slices.h"
#include "core/mutant.h"

namespace pstorage::ploop {

void Ploop_image::wait_for(std::uint32_t index, std::function<void()> retry) {
  auto const found = busy_.find(index);
  PS_ASSERT(found != busy_.end());
  found->second->waiting.push_back(std::move(retry));
}

Ploop_image::Allocation& Ploop_image::make_busy(std::uint32_t index) {
  auto& slot = busy_[index];
  PS_ASSERT(slot == nullptr);
  slot = std::make_unique<Allocation>();
  slot->index = index;
  map_.set_busy(index, true);
  return *slot;
}

void Ploop_image::start_allocation(Run const& run, std::vector<Slice> data, bool fua, Done done) {
  auto& allocation = make_busy(run.index);
  allocation.within = static_cast<std::uint32_t>(run.offset & (cluster_bytes_ - 1));
  allocation.length = static_cast<std::uint32_t>(run.length);
  allocation.data = std::move(data);
  allocation.fua = fua;
  allocation.done = std::move(done);
  find_place(allocation);
}

void Ploop_image::find_place(Allocation& allocation) {
  auto const cluster = space_.take();
  if (!cluster) {
    needing_space_.push_back(&allocation);
    return extend();
  }
  if (space_.wants_extension()) extend();
  // The file of version 1 ends where sector numbers of 32 bits do.
  if (std::uint64_t{*cluster} * header().cluster_sectors >
          std::numeric_limits<std::uint32_t>::max() &&
      header().version == Version::v1) {
    space_.give_back(*cluster);
    allocation.steps_left = 1;
    executor_.defer([this, alive = alive_, &allocation] {
      if (*alive) step_done(allocation, Errc::no_space);
    });
    return;
  }
  allocation.cluster = *cluster;
  ++counters_.allocated;
  if (map_.level(allocation.index) == Image_map::nowhere)
    place_new(allocation);
  else
    copy_up(allocation);
}

/// A cluster that exists nowhere: its place reads as zeros, durably, so that data and entry may
/// reach the disk in any order.
void Ploop_image::place_new(Allocation& allocation) {
  map_.set(allocation.index, top_level_, allocation.cluster);
  allocation.steps_left = allocation.data.empty() ? 1 : 2;
  if (!allocation.data.empty())
    top().write(place_of(top_level_, allocation.cluster, allocation.within),
                std::move(allocation.data), false,
                [this, &allocation](Result<void> const& result) { step_done(allocation, result); });
  write_entry(allocation);
}

/// A cluster that a lower delta has: the copy, with the request's bytes in it, is durable before
/// the entry hides the original.
void Ploop_image::copy_up(Allocation& allocation) {
  ++counters_.copied;
  allocation.steps_left = 1;
  if (allocation.length == cluster_length(allocation.index))
    return write_copy(allocation, std::move(allocation.data));
  auto const level = map_.level(allocation.index);
  auto const place = place_of(level, map_.cluster(allocation.index), 0);
  auto const length = cluster_length(allocation.index);
  layers_[level].store->read(
      place, length, [this, length, &allocation](Result<std::vector<Slice>> result) {
        if (!result) {
          space_.give_back(allocation.cluster);  // untouched
          return step_done(allocation, result.error());
        }
        auto const& original = result.value();
        auto request =
            allocation.data.empty() ? zeros(allocation.length) : std::move(allocation.data);
        auto const request_end = allocation.within + allocation.length;
        std::vector<Slice> data;
        append_part(data, original, 0, allocation.within);
        append_part(data, request, 0, allocation.length);
        append_part(data, original, request_end, length - request_end);
        write_copy(allocation, std::move(data));
      });
}

void Ploop_image::write_copy(Allocation& allocation, std::vector<Slice> data) {
  auto const durable = [this, &allocation](Result<void> const& result) {
    // A failed write leaves unknown bytes: the place is lost until the image is opened again.
    if (!result) return step_done(allocation, result);
    map_.set(allocation.index, top_level_, allocation.cluster);
    write_entry(allocation);
  };
  if (data.empty()) {  // zeros for the whole cluster: the place has them already
    map_.set(allocation.index, top_level_, allocation.cluster);
    return write_entry(allocation);
  }
  top().write(place_of(top_level_, allocation.cluster, 0), std::move(data), false,
              [this, durable](Result<void> const& result) {
                if (!result || PS_MUTANT(copy_is_not_durable_before_its_entry))
                  return durable(result);
                barrier_.wait(durable);
              });
}

void Ploop_image::write_entry(Allocation& allocation) {
  if (PS_MUTANT(write_is_answered_before_its_entry)) step_done(allocation, success());
  auto const index = allocation.index;
  bat_.write_entry(index, [this, index](Result<void> const& result) {
    if (!result) break_with(result.error());
    if (PS_MUTANT(write_is_answered_before_its_entry)) return;
    step_done(*busy_.at(index), result);
  });
}

void Ploop_image::step_done(Allocation& allocation, Result<void> const& result) {
  if (!result && allocation.result) allocation.result = result;
  if (--allocation.steps_left == 0) finish(allocation);
}

void Ploop_image::finish(Allocation& allocation) {
  auto const found = busy_.find(allocation.index);
  auto const finished = std::move(found->second);
  busy_.erase(found);
  map_.set_busy(finished->index, false);
  if (finished->result && finished->fua)
    barrier_.wait(std::move(finished->done));
  else
    finished->done(finished->result);
  // In the order they came; one of them may make the cluster busy again, the rest wait for that.
  for (auto& retry : finished->waiting) retry();
  advance_closing();
}

void Ploop_image::extend() {
  if (extending_) return;
  extending_ = true;
  auto const end = space_.extension_end();
  top().extend(header().offset_of(end),
               [this, end](Result<void> const& result) { extended(end, result); });
  if (PS_MUTANT(space_is_used_before_it_is_durable)) {
    space_.extended(end);
    serve_space();
  }
}

void Ploop_image::extended(std::uint32_t end, Result<void> const& result) {
  extending_ = false;
  if (result) {
    space_.extended(end);
    serve_space();
  } else if (!cleaning_) {
    // Nobody will free anything soon: those who wait must know. Else serve_space() asks once more.
    for (auto* const allocation : std::exchange(needing_space_, {})) {
      allocation->steps_left = 1;
      step_done(*allocation, result);
    }
  }
  advance_closing();
}

void Ploop_image::serve_space() {
  for (auto count = needing_space_.size(); count > 0 && !needing_space_.empty(); --count) {
    auto* const allocation = needing_space_.front();
    needing_space_.pop_front();
    find_place(*allocation);
  }
}

}  // namespace pstorage::ploop
