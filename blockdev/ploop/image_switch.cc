// Ploop_image: a snapshot of a disk in use. The top is closed like at the end, and another one goes
// on.
#include "blockdev/ploop/ploop_image.h"
#include "core/mutant.h"

namespace pstorage::ploop {

void Ploop_image::push_layer(std::unique_ptr<Image_store> store, Header const& header,
                             Commit commit, Done done) {
  PS_ASSERT(!switch_ && !closing_ && is_writable_ && header.is_open());
  PS_ASSERT(header.size_bytes() == size_ && header.cluster_bytes() == cluster_bytes_);
  if (broken_) return answer(std::move(done), broken_);
  if (layers_.size() >= levels_max) return answer(std::move(done), Errc::too_large);
  switch_ = std::make_unique<Switch>();
  switch_->layer = {std::move(store), false, header};
  switch_->commit = std::move(commit);
  switch_->done = std::move(done);
  // Never from inside this call.
  answer([this](Result<void> const&) { advance_switch(); }, success());
}

void Ploop_image::advance_switch() {
  if (!switch_ || switch_->is_under_way) return;
  if (!busy_.empty() || extending_ || cleaning_ || !bat_.is_idle()) return;
  switch_->is_under_way = true;
  if (PS_MUTANT(snapshot_before_it_is_durable))
    return switch_->commit([this](Result<void> const& committed) { switched(committed); });
  close_top([this](Result<void> const& closed) {
    if (!closed) return switched(closed);
    switch_->commit([this](Result<void> const& committed) { switched(committed); });
  });
}

void Ploop_image::switched(Result<void> const& committed) {
  auto const finished = std::move(switch_);
  if (!committed) {
    if (broken_) return finished->done(committed);
    // The old top goes on: durably marked as open before anything is written to it.
    space_ = Cluster_space(used_end(), space_.step());
    return begin([done = finished->done, committed](Result<void> const& begun) {
      done(begun ? committed : begun);
    });
  }
  auto const step = space_.step();
  layers_.push_back(std::move(finished->layer));
  top_level_ = static_cast<Level>(layers_.size() - 1);
  bat_.set_store(top());
  barrier_.set_store(top());
  durable_entries_ = bat_.writes();
  space_ = Cluster_space(header().first_cluster, step);
  holes_ = {};
  finished->done(success());
}

}  // namespace pstorage::ploop
