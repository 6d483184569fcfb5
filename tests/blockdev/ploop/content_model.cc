#include "tests/blockdev/ploop/content_model.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace pstorage::ploop::test {
namespace {

std::uint64_t word(std::uint64_t index, std::uint64_t number, std::size_t i) {
  return i == 0 ? index + 1 : i == 1 ? number : (index * 1000003 + number) * 31 + i;
}

}  // namespace

std::uint64_t Content_model::submit(std::uint64_t first, std::uint64_t count, bool is_zero,
                                    bool is_discard) {
  for (auto i = first; i < first + count; ++i)
    histories_[i].changes.push_back({next_, is_zero || is_discard, is_discard});
  return next_++;
}

void Content_model::answered(std::uint64_t first, std::uint64_t count, std::uint64_t number,
                             bool durable) {
  for (auto i = first; i < first + count; ++i) {
    auto& history = histories_[i];
    history.answered = std::max(history.answered, number);
    if (durable) history.durable = std::max(history.durable, number);
    trim(history);
  }
}

std::vector<std::uint64_t> Content_model::snapshot() const {
  std::vector<std::uint64_t> numbers(histories_.size());
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = histories_[i].answered;
  return numbers;
}

void Content_model::flushed(std::vector<std::uint64_t> const& snapshot) {
  for (std::size_t i = 0; i < snapshot.size(); ++i) {
    histories_[i].durable = std::max(histories_[i].durable, snapshot[i]);
    trim(histories_[i]);
  }
}

/// Forgets what is before the last durable change; a discard needs what was before it.
void Content_model::trim(History& history) {
  auto& changes = history.changes;
  auto from = std::find_if(changes.rbegin(), changes.rend(), [&](Change const& change) {
                return change.number <= history.durable && !change.is_discard;
              }).base();
  if (from != changes.begin()) changes.erase(changes.begin(), from - 1);
}

void Content_model::fill(std::uint64_t first, std::uint64_t number, Mutable_bytes to) {
  for (std::size_t at = 0; at < to.size(); at += sector, ++first)
    for (std::size_t i = 0; i < sector / 8; ++i)
      store_le(to.data() + at + i * 8, word(first, number, i));
}

std::uint64_t Content_model::stamp_of(std::uint64_t index, std::byte const* at) {
  static std::array<std::byte, sector> const zeros{};
  if (std::memcmp(at, zeros.data(), sector) == 0) return 0;
  auto const number = load_le<std::uint64_t>(at + 8);
  for (std::size_t i = 0; i < sector / 8; ++i)
    if (load_le<std::uint64_t>(at + i * 8) != word(index, number, i)) return garbage;
  return number;
}

bool Content_model::may_be(History const& history, std::size_t position, std::uint64_t stamp) {
  auto const& change = history.changes[position];
  if (stamp == (change.is_zero ? 0 : change.number)) return true;
  return change.is_discard && position > 0 && may_be(history, position - 1, stamp);
}

std::vector<std::uint64_t> Content_model::newest(std::uint64_t first, std::uint64_t count) const {
  std::vector<std::uint64_t> numbers;
  for (auto i = first; i < first + count; ++i)
    numbers.push_back(histories_[i].changes.back().number);
  return numbers;
}

std::string Content_model::check_read(std::uint64_t first, std::vector<std::uint64_t> const& newest,
                                      Bytes bytes) const {
  for (std::size_t i = 0; i < newest.size(); ++i) {
    auto const& history = histories_[first + i];
    // It may be forgotten already: then a later one was answered, and the read cannot be judged.
    if (history.changes.front().number > newest[i]) continue;
    std::size_t position = 0;
    while (history.changes[position].number != newest[i]) ++position;
    auto const stamp = stamp_of(first + i, bytes.data() + i * sector);
    if (may_be(history, position, stamp)) continue;
    return "read of sector " + std::to_string(first + i) + ": found write " +
           (stamp == garbage ? "garbage" : std::to_string(stamp)) + ", the last one was " +
           std::to_string(newest[i]);
  }
  return {};
}

std::string Content_model::check_after(bool power, Bytes disk) {
  std::string fault;
  for (std::size_t i = 0; i < histories_.size(); ++i) {
    auto& history = histories_[i];
    auto const known = power ? history.durable : std::max(history.answered, history.durable);
    auto const stamp = stamp_of(i, disk.data() + i * sector);
    bool allowed = false;
    for (std::size_t position = 0; position < history.changes.size(); ++position) {
      bool const is_last_known =
          position + 1 == history.changes.size() || history.changes[position + 1].number > known;
      if (history.changes[position].number < known && !is_last_known) continue;
      allowed = allowed || may_be(history, position, stamp);
    }
    if (!allowed && fault.empty())
      fault = "sector " + std::to_string(i) + " holds write " +
              (stamp == garbage ? "garbage" : std::to_string(stamp)) + ", but " +
              std::to_string(known) + (power ? " was durable" : " was answered") +
              " and the last one was " + std::to_string(history.changes.back().number);
    history = History{{{stamp, stamp == 0, false}}, 0, 0};
  }
  return fault;
}

}  // namespace pstorage::ploop::test
