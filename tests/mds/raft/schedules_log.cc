// Figure 8, late acknowledgements, stale suffixes, snapshots.
#include "tests/mds/raft/lab.h"
#include "tests/mds/raft/schedules.h"

namespace pstorage::mds::raft {
namespace {

bool is_append(Raft_message const& message) { return message.kind == Message_kind::append; }

/// Five members: 1 leads term 1 with "a" and "b" at indexes 2 and 3 everywhere and "c" at 4 only on
/// 1 and 3. Then 2 leads term 2, its first entry at 4 only on 2 and 4; 1 is away.
void leave_a_stale_suffix(Lab& lab) {
  lab.elect(1);
  for (auto const* command : {"a", "b"}) lab.propose(1, command);
  lab.deliver_all();
  lab.run(2);
  for (std::uint64_t const other : {2, 4, 5}) lab.cut(1, other);
  lab.propose(1, "c");
  lab.deliver_all();
  lab.isolate(1);
  lab.hold([](Raft_message const& message) {
    return is_append(message) && message.from.value == 2 && message.to.value != 4;
  });
  lab.elect(2);
}

/// What a leader of term 2 may send to see whether an append was lost.
Raft_message probe_at_3(std::uint64_t commit) {
  return {.kind = Message_kind::append,
          .from = Member_id{2},
          .to = Member_id{3},
          .term = 2,
          .index = 3,
          .log_term = 1,
          .commit = commit};
}

}  // namespace

std::string an_entry_of_an_older_term_is_not_committed_by_counting() {
  Lab lab(5, {.append_bytes_max = 1});
  lab.elect(1);
  for (std::uint64_t const other : {3, 4, 5}) lab.cut(1, other);
  lab.propose(1, "a");  // index 2, on 1 and 2
  lab.deliver_all();
  lab.crash(1);
  lab.heal();
  lab.hold([](Raft_message const& message) { return is_append(message); });
  bool const is_5_elected = lab.elect(5);  // its first entry at 2 stays with it
  lab.crash(5);
  lab.release();
  lab.restart(1);
  bool is_probed = false;
  lab.hold([&is_probed](Raft_message const& message) {
    if (message.to.value == 4 && is_append(message)) return true;
    bool const is_own = !message.entries.empty() && message.entries.front().term == 3;
    return message.to.value == 3 && is_own && std::exchange(is_probed, true);
  });
  bool const is_1_elected = lab.elect(1) || lab.elect(1);  // "a" reaches 3: it is on a majority now
  bool const is_on_3 = lab.core(3).durable() == 2;
  lab.crash(1);
  lab.release();
  lab.wire().clear();
  lab.restart(5);
  bool const is_5_elected_again = lab.elect(5) || lab.elect(5);
  return lab.verdict(is_5_elected && is_1_elected && is_on_3 && is_5_elected_again,
                     "the schedule did not take its course");
}

std::string an_acknowledgement_of_an_older_term_does_not_count() {
  Lab lab(5);
  lab.elect(1);
  for (std::uint64_t const other : {2, 4, 5}) lab.cut(1, other);
  lab.hold([](Raft_message const& message) {
    return message.kind == Message_kind::append_reply && message.from.value == 3;
  });
  lab.propose(1, "a");
  lab.propose(1, "b");
  lab.deliver_all();
  auto const late = lab.release();  // "3 has up to index 3"
  lab.isolate(1);
  bool const is_2_elected = lab.elect(2);  // term 2 overwrites them
  lab.heal();
  lab.run(3);
  lab.hold([](Raft_message const& message) {
    return is_append(message) && message.from.value == 1 && message.to.value != 2;
  });
  bool const is_1_elected = lab.elect(1);  // its first entry is at index 3, on 1 and 2
  for (auto const& message : late) lab.deliver(message);
  lab.deliver_all();
  return lab.verdict(is_2_elected && is_1_elected && lab.core(1).commit() == 2,
                     "the schedule did not take its course");
}

std::string a_stale_suffix_is_never_acknowledged() {
  Lab lab(5);
  leave_a_stale_suffix(lab);
  bool const is_led = lab.core(2).is_leader();
  lab.deliver(probe_at_3(3));
  lab.deliver_all();
  return lab.verdict(is_led && lab.core(2).commit() == 3, "committed with two copies");
}

std::string a_follower_commits_only_what_it_has_verified() {
  Lab lab(5);
  leave_a_stale_suffix(lab);
  for (auto& message : lab.release()) {
    if (message.to.value == 5) lab.deliver(std::move(message));
  }
  lab.hold([](Raft_message const& message) { return message.to.value == 3; });
  lab.deliver_all();
  bool const is_committed = lab.core(2).commit() == 4;  // on 2, 4 and 5
  lab.deliver(probe_at_3(4));
  return lab.verdict(is_committed && lab.core(3).commit() == 3, "committed what was not verified");
}

std::string a_write_that_was_voided_under_way_does_not_count() {
  Lab lab(5);
  lab.elect(1);
  lab.run(2);
  for (std::uint64_t const other : {2, 4, 5}) lab.cut(1, other);
  lab.hold_disk(3, true);
  lab.propose(1, "a");  // reaches 3: the first write under way
  lab.deliver_all();
  lab.isolate(1);
  lab.hold([](Raft_message const& message) {
    return is_append(message) && message.from.value == 2 && message.to.value != 3;
  });
  bool const is_2_elected = lab.elect(2);  // voids it: the second
  lab.crash(2);
  lab.release();
  lab.heal();
  bool const is_1_elected = lab.elect(1);  // brings it again: the third
  lab.sync_one(3);
  bool const is_voided = lab.core(3).durable() == 1;
  lab.hold_disk(3, false);
  lab.deliver_all();
  return lab.verdict(is_2_elected && is_1_elected && is_voided, "a voided write counts as durable");
}

std::string a_snapshot_that_ends_in_a_later_term_is_installed() {
  Lab lab(3);
  lab.elect(1);
  lab.isolate(3);
  lab.propose(1, "a");
  lab.deliver_all();
  lab.run(2);
  auto const snapshot = lab.snapshot_of(1);
  lab.core(1).cut(snapshot.index);
  lab.core(2).cut(2);
  lab.heal();
  lab.run(2);
  bool const is_needed = lab.needs_snapshot(3);
  lab.crash(1);  // while it streams
  bool const is_elected = lab.elect(2);
  lab.propose(2, "b");
  lab.deliver_all();
  bool const is_later = lab.core(3).term() == 2;
  bool const is_installed = lab.install(3, snapshot, 1, 1);
  bool const is_wanted_again = lab.install(3, lab.snapshot_of(2, 2), 2, 2);
  lab.run(3);
  bool const is_equal = lab.commands(3) == std::vector<std::string>{"a", "b"};
  return lab.verdict(
      is_needed && is_elected && is_later && is_installed && !is_wanted_again && is_equal,
      "3 did not go on behind the snapshot");
}

std::string a_member_that_conflicts_where_the_log_begins_gets_a_snapshot() {
  Lab lab(3);
  lab.elect(3);
  lab.run(2);
  lab.isolate(3);
  lab.propose(3, "lost");  // index 2 of term 1, on 3 alone
  lab.elect(1);            // index 2 of term 2
  lab.propose(1, "a");
  lab.deliver_all();
  lab.run(2);
  lab.core(2).cut(2);
  lab.crash(1);
  lab.restart(1);
  bool const is_elected = lab.elect(2);
  lab.heal();
  bool is_quiet = true;
  for (int i = 0; i < 40; ++i) {
    lab.tick(2);
    is_quiet = is_quiet && lab.deliver_all();
  }
  bool const is_needed = lab.needs_snapshot(3);
  lab.install(3, lab.snapshot_of(2), 2, lab.core(2).term());
  lab.run(3);
  return lab.verdict(is_elected && is_quiet && is_needed && lab.commands(3) == lab.commands(2),
                     "a leader asks for ever where the logs agree");
}

std::string a_snapshot_keeps_acknowledged_entries_behind_it() {
  Lab lab(3);
  lab.elect(1);
  lab.isolate(2);
  // 3 acknowledges all four, and hears of no commit.
  for (auto const* command : {"a", "b", "c", "d"})
    lab.core(1).propose(Slice::copy_of(as_bytes(command))).value();
  lab.turn(1);
  lab.deliver_all();
  bool const is_committed = lab.core(1).commit() == 5 && lab.core(3).commit() < 4;
  bool const is_installed = lab.install(3, lab.snapshot_of(1, 4), 1, 1);
  lab.crash(1);
  lab.wire().clear();
  lab.heal();
  bool const is_elected = lab.elect(2);
  return lab.verdict(is_committed && is_installed && !is_elected && lab.core(3).durable() == 5,
                     "the snapshot took an acknowledged entry away");
}

}  // namespace pstorage::mds::raft
