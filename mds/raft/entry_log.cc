#include "mds/raft/entry_log.h"

#include <algorithm>

#include "core/assert.h"
#include "core/mutant.h"

namespace pstorage::mds::raft {

Entry_log::Entry_log(Snapshot base, std::vector<Log_entry> entries) {
  reset(std::move(base));
  for (auto& entry : entries) append(std::move(entry));
}

std::optional<std::uint64_t> Entry_log::term_at(std::uint64_t index) const {
  if (index < base_.index || index > last_index()) return std::nullopt;
  return index == base_.index ? base_.term : at(index).term;
}

Log_entry const& Entry_log::at(std::uint64_t index) const {
  PS_ASSERT(index > base_.index && index <= last_index());
  return entries_[index - base_.index - 1];
}

std::vector<Log_entry> Entry_log::slice(std::uint64_t from, std::uint64_t to,
                                        std::size_t bytes_max) const {
  std::vector<Log_entry> found;
  std::size_t bytes = 0;
  for (auto index = from; index <= to; ++index) {
    auto const& entry = at(index);
    bytes += cost_of(entry);
    if (!found.empty() && bytes > bytes_max) break;
    found.push_back(entry);
  }
  return found;
}

std::uint64_t Entry_log::agree_at(std::uint64_t index, std::uint64_t term) const {
  index = std::min(index, last_index());
  while (index > base_.index && at(index).term > term) --index;
  bool const is_below_base = index == base_.index && base_.term > term;
  return is_below_base && !PS_MUTANT(logs_agree_where_they_begin) ? index - 1 : index;
}

void Entry_log::append(Log_entry entry) {
  PS_ASSERT(entry.index == last_index() + 1 && entry.term >= last_term());
  if (entry.kind == Entry_kind::configuration) {
    auto configuration = decode_configuration(entry.bytes.bytes());
    PS_ASSERT(configuration.has_value());  // whoever takes entries in has checked them
    configurations_.emplace_back(entry.index, std::move(configuration).value());
  }
  entries_.push_back(std::move(entry));
}

void Entry_log::truncate_from(std::uint64_t index) {
  PS_ASSERT(index > base_.index);
  while (last_index() >= index) entries_.pop_back();
  if (PS_MUTANT(keep_truncated_configuration)) return;
  while (configurations_.size() > 1 && configurations_.back().first >= index) {
    configurations_.pop_back();
  }
}

void Entry_log::cut(std::uint64_t index) {
  if (index <= base_.index) return;
  auto base = snapshot_at(index);
  entries_.erase(entries_.begin(),
                 entries_.begin() + static_cast<std::ptrdiff_t>(index - base_.index));
  while (configurations_.size() > 1 && configurations_[1].first <= index) {
    configurations_.erase(configurations_.begin());
  }
  base_ = std::move(base);
}

void Entry_log::reset(Snapshot base) {
  base_ = std::move(base);
  entries_.clear();
  configurations_.clear();
  configurations_.emplace_back(base_.index, base_.configuration);
}

Snapshot Entry_log::snapshot_at(std::uint64_t index) const {
  Snapshot snapshot{index, term_at(index).value(), {}};
  if (PS_MUTANT(snapshot_with_the_last_term)) snapshot.term = last_term();
  auto const* found = &configurations_.front().second;
  for (auto const& [from, configuration] : configurations_) {
    if (from <= index) found = &configuration;
  }
  snapshot.configuration = *found;
  return snapshot;
}

}  // namespace pstorage::mds::raft
