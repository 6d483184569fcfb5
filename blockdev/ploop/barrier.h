// Flushes of one store, shared: whoever asks while one is under way gets the next one, together.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "blockdev/ploop/image_store.h"

namespace pstorage::ploop {

/// After one failed, all fail: what the store holds is no longer known, a later success would hide
/// it. Thread: the owner's loop.
class Barrier {
 public:
  /// `on_start` is called before each flush; `on_end` after it, before those who waited.
  Barrier(Image_store& store, std::function<void()> on_start,
          std::function<void(Result<void> const&)> on_end)
      : store_(&store), on_start_(std::move(on_start)), on_end_(std::move(on_end)) {}

  /// Another store from now on. Nobody waits.
  void set_store(Image_store& store) { store_ = &store; }
  bool is_idle() const { return under_way_.empty() && waiting_.empty(); }

  /// Calls `done` when everything answered before this call is durable.
  void wait(Done done) {
    waiting_.push_back(std::move(done));
    if (under_way_.empty()) start();
  }

 private:
  void start() {
    under_way_.swap(waiting_);
    on_start_();
    store_->flush([this](Result<void> const& result) {
      auto const done = std::exchange(under_way_, {});
      if (!result && !failed_) failed_ = result.error();
      on_end_(result);
      if (!waiting_.empty()) start();
      for (auto const& each : done) each(failed_ ? Result<void>(failed_) : result);
    });
  }

  Image_store* store_;
  std::function<void()> on_start_;
  std::function<void(Result<void> const&)> on_end_;
  std::vector<Done> under_way_;
  std::vector<Done> waiting_;
  std::error_code failed_;
};

}  // namespace pstorage::ploop
