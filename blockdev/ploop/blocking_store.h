// Image_store for code that may wait: offline operations, the command line.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "blockdev/ploop/image_store.h"
#include "blockdev/ploop/slices.h"

namespace pstorage::ploop {

/// One turn of the loop that the store's callbacks come from. Never called from inside one. False:
/// no answer is worth waiting for any more.
using Turn = std::function<bool()>;

/// Turns until `start(callback)` was answered. T: Result<void> or Result<std::vector<Slice>>.
/// Errors: the answer's, timed_out when the turns have ended.
template <typename T, typename Start>
T wait_for_answer(Turn const& turn, Start const& start) {
  auto const answer = std::make_shared<std::optional<T>>();
  start([answer](T result) { answer->emplace(std::move(result)); });
  while (!*answer)
    if (!turn()) return Errc::timed_out;
  return std::move(**answer);
}

/// Owns a store. Every call returns when the store has answered. Thread: the loop's.
class Blocking_store {
 public:
  Blocking_store(std::unique_ptr<Image_store> store, Turn turn)
      : store_(std::move(store)), turn_(std::move(turn)) {}

  std::uint64_t size_bytes() const { return store_->size_bytes(); }

  /// `length` bytes in one slice. Errors: bad_request past the end of the file.
  Result<Slice> read(std::uint64_t offset, std::uint64_t length) {
    if (!in_bounds(offset, length, size_bytes())) return Errc::bad_request;
    auto answer = wait_for_answer<Result<std::vector<Slice>>>(
        turn_, [&](Read_done done) { store_->read(offset, length, std::move(done)); });
    if (!answer) return answer.error();
    return gathered(answer.value());
  }
  Result<void> write(std::uint64_t offset, Slice data) {
    std::vector<Slice> slices;
    slices.push_back(std::move(data));
    return wait([&](Done done) { store_->write(offset, slices, false, std::move(done)); });
  }
  Result<void> punch(std::uint64_t offset, std::uint64_t length) {
    return wait([&](Done done) { store_->punch(offset, length, false, false, std::move(done)); });
  }
  Result<void> flush() {
    return wait([&](Done done) { store_->flush(std::move(done)); });
  }
  Result<void> extend(std::uint64_t size_bytes) {
    return wait([&](Done done) { store_->extend(size_bytes, std::move(done)); });
  }
  Result<void> truncate(std::uint64_t size_bytes) {
    return wait([&](Done done) { store_->truncate(size_bytes, std::move(done)); });
  }

  /// Gives the store up, to open an image over it.
  std::unique_ptr<Image_store> release() { return std::move(store_); }
  Turn const& turn() const { return turn_; }

 private:
  template <typename Start>
  Result<void> wait(Start const& start) {
    return wait_for_answer<Result<void>>(turn_, start);
  }

  std::unique_ptr<Image_store> store_;
  Turn turn_;
};

}  // namespace pstorage::ploop
