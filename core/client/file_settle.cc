// File_volume: what a holder that left without closing has written may be on some replicas only.
// Readers believe any of them, so whoever gives a file back has made them agree first: DESIGN 5.
#include <algorithm>
#include <utility>

#include "core/client/file_volume.h"
#include "core/mutant.h"

namespace pstorage::client {
namespace {

constexpr std::size_t asked_max = 32;  // chunks at once: each is opened, and compared if need be

}  // namespace

void File_volume::settle(Time_point give_up, Done done) {
  if (dead_ != Errc::ok) return done(make_error_code(dead_));
  if (is_settled_ || is_reader() || PS_MUTANT(close_unsettled_as_clean)) return done(success());
  if (settling_ == nullptr) settling_ = std::make_unique<Settling>();
  settling_->give_up = std::max(settling_->give_up, give_up);
  settling_->done.push_back(std::move(done));
  if (settling_->done.size() > 1) return;
  settling_->round = ++settlings_;
  settle_more();
}

std::vector<std::uint32_t> File_volume::unsettled_chunks() const {
  std::vector<std::uint32_t> found;
  for (auto const& [index, _] : untouched_) found.push_back(index);
  for (auto const& [index, chunk] : chunks_)
    if (chunk->is_mapped() && !chunk->is_reconciled()) found.push_back(index);
  std::erase_if(found,
                [&](std::uint32_t index) { return std::uint64_t{index} * chunk_bytes_ >= size_; });
  std::sort(found.rbegin(), found.rend());
  return found;
}

/// A question about one block waits, as every request does, until the chunk's replicas agree.
void File_volume::settle_more() {
  if (settling_->left.empty() && settling_->asked == 0) {
    settling_->left = unsettled_chunks();
    if (settling_->left.empty()) {
      is_settled_ = true;
      return end_settling(Errc::ok);
    }
  }
  while (settling_ != nullptr && !settling_->left.empty() && settling_->asked < asked_max) {
    std::uint64_t const offset = std::uint64_t{settling_->left.back()} * chunk_bytes_;
    settling_->left.pop_back();
    ++settling_->asked;
    auto const length = std::min<std::uint64_t>(block_bytes, size_ - offset);
    Request& request = new_request(Request_kind::extents, offset, length);
    request.extents_done = [this, round = settling_->round](Request& finished) {
      if (settling_ != nullptr && settling_->round == round) settled_one(finished.error);
    };
    request.parts.emplace_back();
    submit_piece(add_piece(request, Piece_kind::table, offset, length));
    submitted(request);
  }
}

void File_volume::settled_one(Errc status) {
  --settling_->asked;
  if (status != Errc::ok) return end_settling(status);
  settle_more();
}

void File_volume::end_settling(Errc status) {
  if (status != Errc::ok)
    host_.log().warn(
        "not all replicas could be compared after a holder that left without closing",
        {{"file", path_}, {"error", message_of(status)}, {"reason", waiting_reason()}});
  auto const settling = std::exchange(settling_, nullptr);
  Result<void> const result =
      status == Errc::ok ? Result<void>(success()) : Result<void>(make_error_code(status));
  for (Done const& done : settling->done) answer_later([done, result] { done(result); });
}

}  // namespace pstorage::client
