// What a leader knows of another member's log, and how much it may send ahead of its replies.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <utility>

namespace pstorage::mds::raft {

struct Window {
  std::size_t messages_max = 64;
  std::size_t bytes_max = 8u << 20;
};

class Progress {
 public:
  enum class State {
    probe,      // one message at a time, until it is known where the logs agree
    replicate,  // ahead of the replies, within the window
    snapshot    // nothing: the shell streams one
  };

  explicit Progress(std::uint64_t next) : next_(next) {}

  State state() const { return state_; }
  /// Acknowledged as durable there, and equal to ours.
  std::uint64_t match() const { return match_; }
  /// First entry that the next message carries.
  std::uint64_t next() const { return next_; }

  bool may_send(Window const& window) const {
    if (state_ == State::snapshot) return false;
    if (state_ == State::probe) return !is_waiting_;
    return in_flight_.size() < window.messages_max && in_flight_bytes_ < window.bytes_max;
  }
  bool is_waiting() const { return is_waiting_; }
  void stop_waiting() { is_waiting_ = false; }

  /// An append with entries up to `last` (next() - 1: none) has left.
  void sent(std::uint64_t last, std::size_t bytes) {
    if (state_ == State::probe) {
      is_waiting_ = true;
    } else if (last >= next_) {
      next_ = last + 1;
      in_flight_.emplace_back(last, bytes);
      in_flight_bytes_ += bytes;
    }
  }
  void acknowledged(std::uint64_t index) {
    if (index > match_) denials_ = 0;
    match_ = std::max(match_, index);
    next_ = std::max(next_, match_ + 1);
    while (!in_flight_.empty() && in_flight_.front().first <= match_) {
      in_flight_bytes_ -= in_flight_.front().second;
      in_flight_.pop_front();
    }
    is_waiting_ = false;
  }
  void replicate() {
    forget_in_flight();
    state_ = State::replicate;
    next_ = match_ + 1;
  }
  void probe(std::uint64_t next) {
    forget_in_flight();
    state_ = State::probe;
    next_ = std::max(next, match_ + 1);
  }
  void snapshot() {
    forget_in_flight();
    state_ = State::snapshot;
  }
  /// Wait for a reply or a heartbeat's before the next probe.
  void wait() { is_waiting_ = true; }
  /// It has lost what it had.
  void forget_match() { match_ = 0; }
  /// It says that it lacks entry `match`. One such message may be an old one; not a row of them.
  void denied_match() { ++denials_; }
  /// It has gone back behind what it acknowledged: its repository is an old copy.
  bool has_lost() const { return denials_ >= 3; }

  bool is_active = true;          // heard of since the last check of the quorum
  bool was_active = true;         // ... in the period before it
  std::uint64_t round_acked = 0;  // highest heartbeat round answered in this term

 private:
  void forget_in_flight() {
    in_flight_.clear();
    in_flight_bytes_ = 0;
    is_waiting_ = false;
  }
  State state_ = State::probe;
  std::uint64_t match_ = 0;
  std::uint64_t next_;
  bool is_waiting_ = false;
  std::deque<std::pair<std::uint64_t, std::size_t>> in_flight_;  // last index, bytes
  std::size_t in_flight_bytes_ = 0;
  unsigned denials_ = 0;
};

}  // namespace pstorage::mds::raft
