// Start of the durable Raft log: finds the segments, replays whole frames, tells a torn tail from
// damage in the middle.
#include <algorithm>
#include <utility>

#include "core/assert.h"
#include "core/mutant.h"
#include "mds/raft/raft_log.h"
#include "mds/raft/segment.h"

namespace pstorage::mds::raft {
namespace {

constexpr std::uint64_t unknown_base = ~std::uint64_t{0};

Failure damaged(std::string const& what) {
  return failure(Errc::corrupt,
                 "the metadata log in raft/ is damaged beyond repair: " + what +
                     "; nothing was changed. Remove this server from the cluster and add a new one "
                     "in its place");
}

/// Was the log cut off while it was made? Then at most its first frame was being written.
bool is_unused(std::vector<Segment_chain::Found> const& found) {
  if (found.empty()) return true;
  if (found.size() > 1 || found.front().sequence != 1) return false;
  auto const& content = found.front().content;
  auto const used = std::min<std::size_t>(content.size(), 16 * frame_alignment);
  return std::all_of(content.begin() + static_cast<std::ptrdiff_t>(used), content.end(),
                     [](std::byte byte) { return byte == std::byte{0}; });
}

}  // namespace

struct Raft_log::Recovery {
  Core_state state;
  std::uint64_t expected = 0;       // sequence of the next frame; 0: none seen yet
  bool is_damaged = false;          // frames are missing that no later frame accounts for
  std::uint64_t commit_before = 0;  // the damage
  std::uint64_t lost_until = 0;     // highest index of the log since
  std::uint64_t sequence = 0;       // of the segment of the last frame
  std::uint64_t used = 0;           // where that frame ends
};

Outcome<Core_state> Raft_log::start(std::uint64_t applied, Raft_log_listener& listener) {
  PS_ASSERT(listener_ == nullptr);
  PS_TRY(auto const found, chain_.find());
  Recovery recovery;
  recovery.state.applied = applied;
  PS_CHECK(recover(found, recovery));
  listener_ = &listener;
  if (recovery.expected == 0) {
    if (!is_unused(found)) return damaged("it has no valid frame");
    if (options_.must_exist) return damaged("its files are gone");
    PS_CHECK(create(recovery.state));
  } else {
    last_sequence_ = recovery.expected - 1;
    last_hard_ = recovery.state.hard;
    PS_CHECK(chain_.resume(salt_, found.front().sequence, found.back().sequence, recovery.sequence,
                           recovery.used));
    if (recovery.is_damaged) PS_CHECK(note_damage(recovery));
  }
  return std::move(recovery.state);
}

Outcome<void> Raft_log::create(Core_state& state) {
  state.base.configuration = options_.first;
  salt_ = random_.next();
  member_ = options_.member;
  while (!member_) member_ = {random_.next()};
  PS_CHECK(chain_.create_first(salt_));
  segments_ = {{.base = state.base.index}};
  shape_.reset(state.base);
  Raft_frame frame;
  frame.member = member_;
  frame.base = shape_.end();
  return write_at_start(frame);
}

Outcome<void> Raft_log::write_at_start(Raft_frame const& frame) {
  auto written = write_frame(frame);
  if (written.has_value()) written = chain_.file().sync();
  if (!written.has_value()) {
    return failure(written.error(), "cannot write the metadata log: " + written.error().message());
  }
  segments_.back().is_durable = true;
  return success();
}

/// Begins with the oldest segment. Some of those that were removed may have come back at a power
/// loss: then the log begins with a later one, if the state machine has what is before.
Outcome<void> Raft_log::recover(std::vector<Segment_chain::Found> const& found,
                                Recovery& recovery) {
  auto const applied = recovery.state.applied;
  Outcome<void> first_result = success();
  std::span<Segment_chain::Found const> rest = found;
  for (std::size_t skipped = 0; !rest.empty(); rest = rest.subspan(1), ++skipped) {
    recovery = {};
    recovery.state.applied = applied;
    segments_.assign(skipped, {.base = unknown_base});
    auto result = recover_from(rest, recovery);
    bool const is_found = recovery.expected != 0 || skipped == 0;
    if (result.has_value() && is_found && recovery.state.base.index <= applied) return success();
    if (result.has_value()) {
      result = damaged("it begins behind entry " + std::to_string(recovery.state.base.index) +
                       ", the database has only " + std::to_string(applied));
    }
    if (skipped == 0) first_result = std::move(result);
  }
  return first_result;
}

Outcome<void> Raft_log::recover_from(std::span<Segment_chain::Found const> found,
                                     Recovery& recovery) {
  salt_ = 0;
  for (auto const& segment : found) {
    PS_CHECK(scan(segment, segment.sequence == found.back().sequence, recovery));
  }
  // Empty ones behind the last frame were prepared ahead: resume() removes them.
  while (!segments_.empty() && !segments_.back().is_durable) segments_.pop_back();
  return success();
}

Outcome<void> Raft_log::scan(Segment_chain::Found const& segment, bool is_last,
                             Recovery& recovery) {
  Bytes const content = segment.content;
  auto const header = decode_segment_header(content);
  bool const is_whole = header.has_value() && header.value().sequence == segment.sequence &&
                        header.value().bytes == content.size();
  segments_.push_back({.base = unknown_base});
  if (is_whole) {
    if (salt_ == 0) salt_ = header.value().salt;
    if (header.value().salt != salt_) return damaged("segments of two logs are mixed");
  } else if (salt_ == 0) {
    // The very first one may have been cut off while it was made.
    if (is_last && segment.sequence == 1) return success();
    return damaged("the first segment has no valid header");
  }
  for (auto at = frame_alignment; at < content.size();) {
    std::uint64_t length = 0;
    auto frame = decode_raft_frame(salt_, content.subspan(at), length);
    if (!frame.has_value() || frame.value().sequence < recovery.expected) {
      at += frame_alignment;
      continue;
    }
    at += length;
    recovery.sequence = segment.sequence;
    recovery.used = at;
    PS_CHECK(take_frame(std::move(frame).value(), recovery));
  }
  return success();
}

Outcome<void> Raft_log::take_frame(Raft_frame frame, Recovery& recovery) {
  auto& shape = segments_.back();
  if (!shape.is_durable && frame.base && !frame.is_reset) shape.base = frame.base->index;
  shape.is_durable = true;
  if (frame.first_index != 0) shape.lowest = std::min(shape.lowest, frame.first_index);
  auto& state = recovery.state;
  if (recovery.expected == 0) {
    if (!frame.base || frame.is_reset) return damaged("its beginning is missing");
    member_ = frame.member;
    if (options_.member && options_.member != member_) {
      return failure(Errc::corrupt, "the metadata log in raft/ belongs to another member");
    }
    state.base = *frame.base;
    shape_.reset(state.base);
  } else if (frame.sequence > recovery.expected && !recovery.is_damaged) {
    recovery.is_damaged = !PS_MUTANT(damage_in_the_middle_is_ignored);
    recovery.commit_before = state.hard.commit;
    recovery.lost_until = shape_.last_index();
  }
  recovery.expected = frame.sequence + 1;
  if (recovery.is_damaged && !frame.is_after_damage) {
    collect_damage(frame, recovery);
    if (frame.first_index > state.base.index) shape_.truncate_from(frame.first_index);
    std::erase_if(state.entries,
                  [this](auto const& entry) { return entry.index > shape_.last_index(); });
    return success();
  }
  recovery.is_damaged = false;
  return take_entries(frame, recovery);
}

/// What a frame behind the damage says: how far the log went. Its entries may not fit ours.
void Raft_log::collect_damage(Raft_frame const& frame, Recovery& recovery) {
  recovery.state.hard = frame.hard;
  recovery.lost_until = std::max(recovery.lost_until, frame.last_index);
}

Outcome<void> Raft_log::take_entries(Raft_frame& frame, Recovery& recovery) {
  auto& state = recovery.state;
  state.hard = frame.hard;
  if (frame.is_reset) {
    state.base = *frame.base;
    state.entries.clear();
    shape_.reset(state.base);
  }
  if (frame.first_index != 0) {
    if (frame.first_index <= state.base.index || frame.first_index > shape_.last_index() + 1) {
      return damaged("entry " + std::to_string(frame.first_index) + " does not follow " +
                     std::to_string(state.base.index) + " to " +
                     std::to_string(shape_.last_index()));
    }
    shape_.truncate_from(frame.first_index);
    state.entries.resize(frame.first_index - state.base.index - 1);
    for (auto& entry : frame.entries) {
      shape_.append(entry);
      state.entries.push_back(std::move(entry));
    }
  }
  if (shape_.last_index() != frame.last_index) {
    return damaged("the log ends at " + std::to_string(shape_.last_index()) + ", not at " +
                   std::to_string(frame.last_index));
  }
  return success();
}

/// Writes down, before anything else, that entries are lost: the next start would not see it.
Outcome<void> Raft_log::note_damage(Recovery& recovery) {
  auto const end = shape_.end();
  if (end.configuration.quorum() == 1 && end.configuration.is_voter(member_)) {
    return failure(Errc::corrupt,
                   "the metadata log in raft/ is damaged and no other metadata server has what it "
                   "lost; nothing was changed. Restore the repository from a copy");
  }
  auto& hard = recovery.state.hard;
  // Entries of ours may have been void before the damage: only those committed then are certain.
  hard.commit = std::min(recovery.commit_before, end.index);
  hard.repair_until = std::max(hard.repair_until, recovery.lost_until);
  hard.repair_term = hard.term;
  log_.error("the metadata log is damaged: this server takes part again when it has fetched it",
             {{"from", end.index + 1}, {"until", hard.repair_until}});
  Raft_frame frame;
  frame.member = member_;
  frame.hard = hard;
  frame.first_index = end.index + 1;
  frame.is_after_damage = true;
  if (raft_frame_bytes(0) > chain_.room()) {
    PS_CHECK(chain_.extend());
    segments_.push_back({.base = end.index});
    frame.base = end;
  }
  return write_at_start(frame);
}

}  // namespace pstorage::mds::raft
