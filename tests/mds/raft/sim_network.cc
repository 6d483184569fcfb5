// The network of the simulation: messages and streamed snapshots.
#include <algorithm>
#include <utility>

#include "tests/mds/raft/raft_sim.h"

namespace pstorage::mds::raft {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

}  // namespace

void Raft_sim::send(Raft_message message) {
  auto& seen = terms_[message.from];
  if (message.term > seen && processes_.at(message.from)->is_up()) {
    seen = message.term;
    release_late();
  }
  if (is_cut(message.from, message.to)) return;
  if (!is_calm_ && message.kind == Message_kind::append_reply &&
      random_.percent(plan_.late_percent)) {
    late_.push_back(message);  // a copy may also arrive in time
    if (random_.percent(50)) return;
  }
  if (!is_calm_ && plan_.is_datagram) {
    if (random_.percent(plan_.loss_percent)) return;
    if (random_.percent(plan_.repeat_percent)) deliver_later(message);
  }
  deliver_later(std::move(message));
}

void Raft_sim::release_late() {
  for (auto& message : std::exchange(late_, {})) {
    if (random_.percent(70)) deliver_later(std::move(message));
  }
}

void Raft_sim::deliver_later(Raft_message message) {
  auto delay = random_.between(microseconds(50), plan_.latency_max);
  if (!plan_.is_datagram) {
    // One connection keeps the order.
    auto& last = last_arrival_[{message.from, message.to}];
    last = std::max(last, queue_.now() + delay);
    delay = last - queue_.now();
  }
  queue_.at(delay,
            [this, epoch = epoch_, message = std::move(message)] { deliver(message, epoch); });
}

void Raft_sim::deliver(Raft_message const& message, std::uint64_t epoch) {
  // A connection that broke takes what was on its way with it.
  if (is_cut(message.from, message.to) || (!plan_.is_datagram && epoch != epoch_)) return;
  auto const found = processes_.find(message.to);
  if (found == processes_.end() || !found->second->is_up()) return;
  if (Duration left{}; is_paused(message.to, left)) {
    return queue_.at(left, [this, epoch, message] { deliver(message, epoch); });
  }
  mix(message.to.value << 8 ^ static_cast<std::uint64_t>(message.kind) << 16 ^ message.index << 24 ^
      message.term << 40);
  found->second->receive(message);
}

void Raft_sim::stream(Member_id from, Member_id to, Image image) {
  auto const term = processes_.at(from)->core().term();
  trace(from,
        "snapshot " + std::to_string(image.snapshot.index) + " to " + std::to_string(to.value));
  auto const delay = random_.between(milliseconds(5), milliseconds(is_calm_ ? 50 : 600));
  if (!is_calm_ && random_.percent(plan_.strike_percent)) {
    auto const victim = random_.percent(50) ? from : to;
    queue_.at(delay / 2, [this, victim] {  // in the middle of it
      auto const found = processes_.find(victim);
      if (found != processes_.end() && !is_calm_) crash_for_a_while(*found->second);
    });
  }
  queue_.at(delay, [this, from, to, term, image = std::move(image)] {
    stream_done(from, to, image, term);
  });
}

void Raft_sim::stream_done(Member_id from, Member_id to, Image const& image, std::uint64_t term) {
  mix(image.snapshot.index);
  auto const receiver = processes_.find(to);
  bool const is_up = receiver != processes_.end() && receiver->second->is_up();
  bool const has_arrived = is_up && !is_cut(from, to) && !is_cut(to, from);
  bool const is_installed = has_arrived && receiver->second->install(image, from, term);
  queue_.at(milliseconds(2), [this, from, to, is_installed] {
    auto const sender = processes_.find(from);
    if (sender != processes_.end() && sender->second->is_up()) {
      sender->second->snapshot_sent(to, is_installed);
    }
  });
}

}  // namespace pstorage::mds::raft
