#include "tests/blockdev/ploop/image_sim.h"

#include <cstdio>

#include "blockdev/ploop/check.h"
#include "blockdev/ploop/create.h"
#include "blockdev/ploop/open_image.h"

namespace pstorage::ploop::test {
namespace {

constexpr std::uint32_t cluster_bytes = cluster_bytes_min;
constexpr std::uint64_t cluster_sectors = cluster_bytes / sector_bytes;
constexpr unsigned depth_max = 8;

}  // namespace

void Image_sim::turn() { PS_ASSERT(loop_.run_one()); }

Sim_result Image_sim::run() {
  prepare();
  is_prepared_ = true;
  auto const lives = 2 + random_.below(2);
  for (std::uint64_t life = 0; life < lives && !has_failed(); ++life) {
    open(true, true);
    if (has_failed()) break;
    live(static_cast<unsigned>(20 + random_.below(120)));
    if (has_failed()) break;
    lose_power();
  }
  if (!has_failed()) {
    open(true, true);
    live(20);
    if (!has_failed()) close();
    if (!has_failed()) check_file(*top_, true);
    if (!has_failed()) check_content(false);
  }
  for (auto const byte : top_->bytes())
    result_.hash = (result_.hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3;
  return result_;
}

void Image_sim::prepare() {
  auto const version = random_.percent(50) ? Version::v1 : Version::v2;
  // Few clusters: the smaller the disk, the sooner a freed one is used again.
  auto const clusters = 4 + random_.below(40);
  header_ = make_header(version, cluster_bytes, clusters * cluster_bytes).value();
  model_ = std::make_unique<Content_model>(header_.size_sectors);
  extension_bytes_ = static_cast<std::uint32_t>(1 + random_.below(8)) * cluster_bytes;
  is_chain_ = random_.percent(50);
  make_top();
  if (!is_chain_) return;
  is_chain_ = false;
  open(true, false);
  live(40);
  close();
  std::swap(base_, top_);
  is_chain_ = true;
  make_top();
}

void Image_sim::make_top() {
  Blocking_store store(top_->open(loop_), turns());
  auto const created = create_image(store, header_, false);
  if (!created.has_value()) fail(created.error().text);
}

void Image_sim::open(bool is_writable, bool may_recover) {
  std::vector<Layer> layers;
  if (is_chain_) layers.push_back({base_->open(loop_), false, {}});
  layers.push_back({top_->open(loop_), false, {}});
  bool is_answered = false;
  open_image(std::move(layers), "image", {is_writable, may_recover, extension_bytes_}, loop_,
             [&](Outcome<std::unique_ptr<Ploop_image>> opened) {
               is_answered = true;
               if (opened.has_value())
                 image_ = std::move(opened).value();
               else
                 fail("cannot be opened: " + opened.error().text);
             });
  while (!is_answered) turn();
}

void Image_sim::live(unsigned operations) {
  while (operations > 0 && !has_failed()) {
    if (is_prepared_ && !is_chain_ && !is_switching_ && random_.percent(2)) take_snapshot();
    if (is_prepared_ && is_chain_ && !is_switching_ && merge_ == Merge::none && random_.percent(2))
      start_merge();
    if (merge_ == Merge::copied && !is_switching_) drop_base();
    if (is_switching_) {
      turn();
    } else if (in_flight_ < depth_max && (loop_.is_idle() || random_.percent(40))) {
      submit();
      ++result_.operations;
      --operations;
    } else {
      turn();
    }
  }
}

void Image_sim::tell(char const* what, std::uint64_t first, std::uint64_t count,
                     std::uint64_t number, bool fua) const {
  if (is_verbose_)
    std::printf("%s %llu: sectors [%llu, %llu)%s\n", what, static_cast<unsigned long long>(number),
                static_cast<unsigned long long>(first),
                static_cast<unsigned long long>(first + count), fua ? " FUA" : "");
}

void Image_sim::submit() {
  auto const sectors = model_->sectors();
  auto first = random_.below(sectors);
  auto count = 1 + random_.below(random_.percent(80) ? 16 : 3 * cluster_sectors);
  if (random_.percent(30)) {  // whole clusters
    first = first / cluster_sectors * cluster_sectors;
    count = (1 + random_.below(2)) * cluster_sectors;
  }
  count = std::min(count, sectors - first);
  auto const kind = random_.below(100);
  if (kind < 50) return submit_write(first, count);
  if (kind < 58) return submit_zero(first, count, false);
  if (kind < 75) return submit_zero(first, count, true);
  if (kind < 88) return submit_read(first, count);
  submit_flush();
}

void Image_sim::submit_write(std::uint64_t first, std::uint64_t count) {
  bool const fua = random_.percent(10);
  auto const number = model_->submit(first, count, false, false);
  tell("write", first, count, number, fua);
  auto data = Slice::allocate(count * sector_bytes);
  Content_model::fill(first, number, data.mutable_bytes());
  std::vector<Slice> slices;
  auto const cut = random_.below(data.size() + 1);  // as if received in two pieces
  if (cut > 0) slices.push_back(data.part(0, cut));
  if (cut < data.size()) slices.push_back(data.part(cut, data.size() - cut));
  ++in_flight_;
  image_->write(first * sector_bytes, std::move(slices), fua, [=, this](Result<void> result) {
    --in_flight_;
    if (!result) return fail("a write failed: " + result.error().message());
    tell("answered", first, count, number, fua);
    model_->answered(first, count, number, fua);
  });
}

void Image_sim::submit_zero(std::uint64_t first, std::uint64_t count, bool is_discard) {
  bool const fua = random_.percent(10);
  auto const number = model_->submit(first, count, true, is_discard);
  tell(is_discard ? "discard" : "zero", first, count, number, fua);
  ++in_flight_;
  image_->zero(first * sector_bytes, count * sector_bytes, is_discard, fua,
               [=, this](Result<void> result) {
                 --in_flight_;
                 if (!result) return fail("zeroing failed: " + result.error().message());
                 // A discard may leave what is there, an earlier write under way included: its
                 // answer makes nothing certain.
                 if (!is_discard) model_->answered(first, count, number, fua);
               });
}

void Image_sim::submit_read(std::uint64_t first, std::uint64_t count) {
  auto const newest = model_->newest(first, count);
  ++in_flight_;
  image_->read(
      first * sector_bytes, count * sector_bytes, [=, this](Result<std::vector<Slice>> result) {
        --in_flight_;
        if (!result) return fail("a read failed: " + result.error().message());
        if (total(result.value()) != count * sector_bytes)
          return fail("a read was answered with another length");
        auto const wrong = model_->check_read(first, newest, gathered(result.value()).bytes());
        if (!wrong.empty()) fail(wrong);
      });
}

void Image_sim::submit_flush() {
  auto const covered = model_->snapshot();
  ++in_flight_;
  image_->flush([=, this](Result<void> result) {
    --in_flight_;
    if (!result) return fail("a flush failed: " + result.error().message());
    tell("flushed", 0, 0, 0, false);
    model_->flushed(covered);
  });
}

/// As the server does it: quiet, a new top that is marked as open, the switch, which the metadata
/// server makes durable at once.
void Image_sim::take_snapshot() {
  while (in_flight_ > 0 && !has_failed()) turn();
  if (has_failed()) return;
  next_ = std::make_unique<Sim_file>(random_);
  auto header = header_;
  {
    Blocking_store store(next_->open(loop_), turns());
    if (auto const created = create_image(store, header, false); !created.has_value())
      return fail(created.error().text);
    header.in_use = in_use_open;
    header.flags &= ~flag_empty;
    auto bytes = Slice::allocate(header_bytes);
    encode_header(header, bytes.mutable_bytes());
    if (!store.write(0, bytes) || !store.flush()) return fail("the new top cannot be written");
  }
  is_switching_ = true;
  tell("snapshot", 0, 0, 0, false);
  auto const commit = [this](Done done) {
    base_ = std::exchange(top_, std::move(next_));
    is_chain_ = true;
    loop_.defer([done = std::move(done)] { done(success()); });
  };
  image_->push_layer(next_->open(loop_), header, commit, [this](Result<void> const& result) {
    is_switching_ = false;
    if (!result) fail("the snapshot failed: " + result.error().message());
  });
}

/// Under load: nobody waits for it.
void Image_sim::start_merge() {
  merge_ = Merge::copies;
  tell("merge", 0, 0, 0, false);
  image_->copy_up_from_below(0, image_->map().size(), [this](Result<void> const& result) {
    merge_ = result ? Merge::copied : Merge::none;
    if (!result && errc_of(result.error()) != Errc::closed)
      fail("copying into the top failed: " + result.error().message());
  });
}

/// The base goes the moment the new descriptor is there, which the metadata server makes durable.
void Image_sim::drop_base() {
  while (in_flight_ > 0 && !has_failed()) turn();
  if (has_failed()) return;
  is_switching_ = true;
  tell("drop", 0, 0, 0, false);
  auto const commit = [this](Done done) {
    dropped_.push_back(std::exchange(base_, std::make_unique<Sim_file>(random_)));
    is_chain_ = false;
    loop_.defer([done = std::move(done)] { done(success()); });
  };
  image_->drop_layer_below(commit, [this](Result<void> const& result) {
    is_switching_ = false;
    merge_ = Merge::none;
    if (!result) fail("the merge failed: " + result.error().message());
  });
}

void Image_sim::close() {
  while ((in_flight_ > 0 || is_switching_ || merge_ == Merge::copies) && !has_failed()) turn();
  merge_ = Merge::none;
  if (has_failed()) return;
  bool is_closed = false;
  auto const covered = model_->snapshot();
  image_->close([&](Result<void> result) {
    is_closed = true;
    if (!result) fail("closing failed: " + result.error().message());
  });
  while (!is_closed) turn();
  model_->flushed(covered);
  image_.reset();
}

void Image_sim::lose_power() {
  if (random_.percent(20)) {  // while it is being closed
    while ((in_flight_ > 0 || is_switching_) && !has_failed()) turn();
    image_->close([](Result<void> const&) {});
    for (auto steps = random_.below(8); steps > 0 && !loop_.is_idle(); --steps) turn();
  }
  if (has_failed()) return;
  image_.reset();
  loop_.clear();
  in_flight_ = 0;
  is_switching_ = false;
  merge_ = Merge::none;
  next_.reset();
  dropped_.clear();
  bool const power = random_.percent(75);
  tell(power ? "power lost" : "killed", 0, 0, 0, false);
  for (auto* const file : {top_.get(), base_.get()}) power ? file->crash() : file->kill();
  ++result_.crashes;
  check_file(*top_, false);
  if (is_chain_ && !has_failed()) check_file(*base_, true);
  if (!has_failed()) check_content(power);
}

void Image_sim::check_file(Sim_file& file, bool was_closed) {
  Blocking_store store(file.open(loop_), turns());
  auto const checked = check_image(store, Check_options{});
  if (!checked.has_value()) return fail("check: " + checked.error().text);
  auto const& report = checked.value();
  if (report.fatal > 0) return fail("check: " + report.faults.front().text);
  if (report.has_wrong_empty_flag) return fail("check: the flag 'empty' is wrong");
  if (was_closed && (report.is_in_use || report.tail_bytes > 0))
    return fail("check: the closed image is marked as in use or has a tail");
  if (!judge_) return;
  if (auto const verdict = judge_(Bytes(file.bytes())); !verdict.empty()) fail(verdict);
}

void Image_sim::check_content(bool power) {
  open(false, false);
  if (has_failed()) return;
  std::vector<Slice> disk;
  bool is_answered = false;
  image_->read(0, image_->size_bytes(), [&](Result<std::vector<Slice>> result) {
    is_answered = true;
    if (result)
      disk = std::move(result.value());
    else
      fail("a read failed: " + result.error().message());
  });
  while (!is_answered) turn();
  image_.reset();
  if (has_failed()) return;
  auto const wrong = model_->check_after(power, gathered(disk).bytes());
  if (!wrong.empty()) fail(wrong);
}

}  // namespace pstorage::ploop::test
