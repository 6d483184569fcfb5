#include "blockdev/ploop/ploop_image.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "blockdev/ploop/slices.h"
#include "core/mutant.h"

namespace pstorage::ploop {
namespace {

constexpr std::size_t zeros_bytes = 256u << 10;

}  // namespace

/// Answers when all parts of a request are done, with the first error.
struct Ploop_image::Join {
  std::size_t left = 0;
  Result<void> result = success();
  std::vector<std::vector<Slice>> parts;  // of a read
  std::function<void(Join&)> finished;

  void done(Result<void> const& part) {
    if (!part && result) result = part;
    if (--left == 0) finished(*this);
  }
};

Ploop_image::Ploop_image(Loaded_image loaded, std::string path, Executor& executor)
    : layers_(std::move(loaded.layers)),
      map_(std::move(loaded.map)),
      top_level_(static_cast<Level>(layers_.size() - 1)),
      is_writable_(loaded.is_writable),
      cluster_bytes_(layers_.back().header.cluster_bytes()),
      cluster_shift_(static_cast<unsigned>(std::countr_zero(cluster_bytes_))),
      size_(layers_.back().header.size_bytes()),
      path_(std::move(path)),
      executor_(executor),
      barrier_(
          top(), [this] { flushing_entries_ = bat_.answered(); },
          [this](Result<void> const& result) {
            if (result)
              durable_entries_ = flushing_entries_;
            else
              break_with(result.error());
          }),
      bat_(top(),
           [this](std::uint32_t page) { return compose_page(header(), map_, top_level_, page); }),
      space_(loaded.space),
      holes_(std::move(loaded.holes)) {
  PS_ASSERT(layers_.size() <= levels_max && std::has_single_bit(cluster_bytes_));
}

Ploop_image::~Ploop_image() { *alive_ = false; }

Image_counters Ploop_image::counters() const {
  auto result = counters_;
  result.bat_writes = bat_.writes();
  return result;
}

void Ploop_image::begin(Done done) {
  PS_ASSERT(is_writable_);
  auto& header = layers_.back().header;
  header.in_use = in_use_open;
  header.flags &= ~flag_empty;
  header.extension_sector = 0;  // its bitmaps are wrong after the first write
  bat_.write_page(0, [this, done = std::move(done)](Result<void> const& result) mutable {
    if (!result) return done(result);
    barrier_.wait([this, done = std::move(done)](Result<void> const& flushed) {
      if (flushed) start_cleaning();
      done(flushed);
    });
  });
}

std::uint64_t Ploop_image::place_of(Level level, std::uint32_t cluster,
                                    std::uint64_t within) const {
  return layers_[level].header.offset_of(cluster) + within;
}

/// Bytes of the disk in its cluster `index`: the last one may be short.
std::uint64_t Ploop_image::cluster_length(std::uint32_t index) const {
  auto const start = std::uint64_t{index} << cluster_shift_;
  return std::min<std::uint64_t>(cluster_bytes_, size_ - start);
}

Ploop_image::Run Ploop_image::run_at(std::uint64_t offset, std::uint64_t end) const {
  auto const index = static_cast<std::uint32_t>(offset >> cluster_shift_);
  auto const within = offset & (cluster_bytes_ - 1);
  Run run{Run::Kind::data, offset, std::min(cluster_bytes_ - within, end - offset), index, 0, 0};
  run.level = map_.level(index);
  if (run.level != Image_map::nowhere) run.place = place_of(run.level, map_.cluster(index), within);
  if (map_.is_busy(index))
    run.kind = Run::Kind::busy;
  else if (run.level == Image_map::nowhere)
    run.kind = Run::Kind::zeros;
  return run;
}

Ploop_image::Run Ploop_image::long_run_at(std::uint64_t offset, std::uint64_t end) const {
  auto run = run_at(offset, end);
  while (run.kind != Run::Kind::busy && run.offset + run.length < end) {
    auto const next = run_at(run.offset + run.length, end);
    if (next.kind != run.kind || next.level != run.level) break;
    if (run.kind == Run::Kind::data && next.place != run.place + run.length) break;
    run.length += next.length;
  }
  return run;
}

std::vector<Slice> Ploop_image::zeros(std::uint64_t length) {
  if (zeros_.empty()) {
    zeros_ = Slice::allocate(zeros_bytes);
    std::memset(zeros_.data(), 0, zeros_bytes);
  }
  std::vector<Slice> slices;
  while (length > 0) {
    auto const take = std::min<std::uint64_t>(length, zeros_bytes);
    slices.push_back(zeros_.part(0, static_cast<std::size_t>(take)));
    length -= take;
  }
  return slices;
}

void Ploop_image::answer(Done done, Result<void> result) {
  executor_.defer([alive = alive_, done = std::move(done), result] {
    if (*alive) done(result);
  });
}

Result<void> Ploop_image::writable() const {
  if (broken_) return broken_;
  if (!is_writable_) return Errc::read_only;
  return success();
}

void Ploop_image::read(std::uint64_t offset, std::uint64_t length, Read_done done) {
  PS_ASSERT(length > 0 && in_bounds(offset, length, size_));
  auto const end = offset + length;
  auto run = long_run_at(offset, end);
  if (run.length == length) return read_run(run, std::move(done));
  auto join = std::make_shared<Join>();
  join->left = 1;
  join->finished = [done = std::move(done)](Join& all) {
    if (!all.result) return done(all.result.error());
    std::vector<Slice> slices;
    for (auto& part : all.parts)
      for (auto& slice : part) slices.push_back(std::move(slice));
    done(std::move(slices));
  };
  for (std::size_t part = 0; offset < end; ++part) {
    run = long_run_at(offset, end);
    ++join->left;
    join->parts.emplace_back();
    read_run(run, [join, part](Result<std::vector<Slice>> result) {
      if (!result) return join->done(result.error());
      join->parts[part] = std::move(result.value());
      join->done(success());
    });
    offset += run.length;
  }
  join->done(success());  // no part has answered yet: callbacks never come from inside
}

void Ploop_image::read_run(Run const& run, Read_done done) {
  switch (run.kind) {
    case Run::Kind::busy:
      return wait_for(run.index, [this, run, done = std::move(done)]() mutable {
        read(run.offset, run.length, std::move(done));
      });
    case Run::Kind::zeros:
      return executor_.defer(
          [this, alive = alive_, length = run.length, done = std::move(done)]() mutable {
            if (*alive) done(zeros(length));
          });
    case Run::Kind::data:
      return layers_[run.level].store->read(run.place, run.length, std::move(done));
  }
}

void Ploop_image::write(std::uint64_t offset, std::vector<Slice> data, bool fua, Done done) {
  auto const length = total(data);
  PS_ASSERT(length > 0 && in_bounds(offset, length, size_) && !closing_);
  if (auto const allowed = writable(); !allowed) return answer(std::move(done), allowed);
  auto const end = offset + length;
  auto run = run_at(offset, end);
  if (run.length == length && is_settled_in_top(run))
    return write_top(run, std::move(data), fua, std::move(done));
  auto join = std::make_shared<Join>();
  join->left = 1;
  join->finished = [done = std::move(done)](Join& all) { done(all.result); };
  for (auto at = offset; at < end; at += run.length) {
    run = run_at(at, end);
    if (is_settled_in_top(run)) run = long_run_at(at, end);
    ++join->left;
    std::vector<Slice> part;
    append_part(part, data, at - offset, run.length);
    write_run(run, std::move(part), fua,
              [join](Result<void> const& result) { join->done(result); });
  }
  join->done(success());
}

/// FUA covers the way to the data, too: an entry that is not durable yet must become so with it.
bool Ploop_image::entries_are_durable() const {
  return durable_entries_ == bat_.writes() || PS_MUTANT(fua_forgets_the_entry);
}

void Ploop_image::write_top(Run const& run, std::vector<Slice> data, bool fua, Done done) {
  if (!fua || entries_are_durable())
    return top().write(run.place, std::move(data), fua, std::move(done));
  top().write(run.place, std::move(data), false, then_durable(std::move(done)));
}

Done Ploop_image::then_durable(Done done) {
  return [this, done = std::move(done)](Result<void> const& result) mutable {
    if (!result) return done(result);
    barrier_.wait(std::move(done));
  };
}

void Ploop_image::write_run(Run const& run, std::vector<Slice> data, bool fua, Done done) {
  bool const is_busy = run.kind == Run::Kind::busy;
  if (is_busy && !(PS_MUTANT(new_cluster_is_not_waited_for) && run.level == top_level_))
    return wait_for(run.index,
                    [this, run, data = std::move(data), fua, done = std::move(done)]() mutable {
                      if (auto const allowed = writable(); !allowed) return done(allowed);
                      write_run(rerun(run), std::move(data), fua, std::move(done));
                    });
  if (is_busy || is_settled_in_top(run))
    return write_top(run, std::move(data), fua, std::move(done));
  start_allocation(run, std::move(data), fua, std::move(done));
}

void Ploop_image::zero(std::uint64_t offset, std::uint64_t length, bool only_whole_blocks, bool fua,
                       Done done) {
  PS_ASSERT(length > 0 && in_bounds(offset, length, size_) && !closing_);
  if (auto const allowed = writable(); !allowed) return answer(std::move(done), allowed);
  auto join = std::make_shared<Join>();
  join->left = 1;
  join->finished = [done = std::move(done)](Join& all) { done(all.result); };
  auto const end = offset + length;
  Run run{};
  bool has_holes = false;
  for (auto at = offset; at < end; at += run.length) {
    run = run_at(at, end);
    has_holes = has_holes || run.kind == Run::Kind::zeros;
    if (run.kind == Run::Kind::zeros) continue;
    ++join->left;
    zero_run(run, only_whole_blocks, fua,
             [join](Result<void> const& result) { join->done(result); });
  }
  // With nothing but holes, the answer must still not come from inside this call.
  auto const last = [join](Result<void> const& result) { join->done(result); };
  answer_hole(fua && has_holes, last);
}

/// Zeros where there is nothing; but the hole may be one that was made just now.
void Ploop_image::answer_hole(bool fua, Done done) {
  if (fua && !entries_are_durable()) return barrier_.wait(std::move(done));
  answer(std::move(done), success());
}

void Ploop_image::zero_run(Run const& run, bool only_whole_blocks, bool fua, Done done) {
  if (run.kind == Run::Kind::busy)
    return wait_for(run.index,
                    [this, run, only_whole_blocks, fua, done = std::move(done)]() mutable {
                      if (auto const allowed = writable(); !allowed) return done(allowed);
                      zero_run(rerun(run), only_whole_blocks, fua, std::move(done));
                    });
  if (run.kind == Run::Kind::zeros) return answer_hole(fua, std::move(done));
  bool const is_whole = run.length == cluster_length(run.index);
  if (run.level == top_level_) {
    bool const may_free = layers_.size() == 1 || PS_MUTANT(chain_discard_clears_the_entry);
    if (is_whole && may_free) return free_cluster(run.index, fua, std::move(done));
    bool const direct = !fua || entries_are_durable();
    return top().punch(run.place, run.length, only_whole_blocks, fua && direct,
                       direct ? std::move(done) : then_durable(std::move(done)));
  }
  // It is in a lower delta. A discard may leave it; zeros need a place of their own.
  if (only_whole_blocks) return answer(std::move(done), success());
  start_allocation(run, {}, fua, std::move(done));
}

void Ploop_image::flush(Done done) {
  if (broken_) return answer(std::move(done), broken_);
  if (!is_writable_) return answer(std::move(done), success());
  barrier_.wait(std::move(done));
}

void Ploop_image::extents(std::uint64_t offset, std::uint64_t length, std::size_t extents_max,
                          client::Extents_done done) {
  PS_ASSERT(extents_max > 0 && in_bounds(offset, length, size_));
  std::vector<client::Extent> runs;
  auto const end = offset + length;
  Run run{};
  for (; offset < end; offset += run.length) {
    run = long_run_at(offset, end);
    bool const is_hole = run.kind == Run::Kind::zeros;
    if (runs.empty() || runs.back().hole != is_hole) {
      if (runs.size() == extents_max) break;
      runs.push_back({0, is_hole});
    }
    runs.back().length += run.length;
  }
  executor_.defer([alive = alive_, done = std::move(done), runs = std::move(runs)]() mutable {
    if (*alive) done(std::move(runs));
  });
}

}  // namespace pstorage::ploop
