// Votes, crashes between them and their fsync, damaged members.
#include "tests/mds/raft/lab.h"
#include "tests/mds/raft/schedules.h"

namespace pstorage::mds::raft {

std::string a_vote_that_is_lost_in_a_crash_was_never_given() {
  Lab lab(3);
  lab.cut(1, 2);
  lab.hold_disk(3, true);
  lab.core(1).campaign();
  lab.turn(1);
  lab.deliver_all();  // 3 votes for 1; the sync is under way
  lab.crash(3);
  lab.hold_disk(3, false);
  lab.restart(3);
  bool const is_elected = lab.elect(2);  // in the same term
  return lab.verdict(is_elected && lab.core(2).term() == 1 && !lab.core(1).is_leader(),
                     "3 did not vote for 2");
}

std::string a_restarted_member_does_not_vote_twice_in_a_term() {
  Lab lab(3);
  lab.cut(1, 2);
  lab.hold([](Raft_message const& message) {
    return (message.kind == Message_kind::vote && message.from.value == 2) ||
           (message.kind == Message_kind::vote_reply && message.to.value == 1);
  });
  for (std::uint64_t const candidate : {2, 1}) {
    lab.core(candidate).campaign();
    lab.turn(candidate);
    lab.deliver_all();  // 3 grants both pre-votes, then votes for 1
  }
  lab.crash(3);
  lab.restart(3);
  for (auto& message : lab.release()) lab.deliver(std::move(message));
  lab.deliver_all();
  return lab.verdict(lab.core(1).is_leader() && !lab.core(2).is_leader(), "1 does not lead");
}

std::string a_transfer_does_not_buy_a_second_vote() {
  Lab lab(3);
  lab.elect(1);
  lab.hold([](Raft_message const& message) {
    return message.kind == Message_kind::vote && message.from.value == 2;
  });
  for (std::uint64_t const heir : {2, 3}) {
    lab.deliver({.kind = Message_kind::timeout_now,
                 .from = Member_id{1},
                 .to = Member_id{heir},
                 .term = 1});
    lab.deliver_all();
  }
  bool const is_elected = lab.core(3).is_leader();
  for (auto& message : lab.release()) lab.deliver(std::move(message));
  lab.deliver_all();
  return lab.verdict(is_elected && !lab.core(2).is_leader(), "3 was not elected alone");
}

std::string a_damaged_member_neither_votes_nor_leads_until_it_is_whole() {
  Lab lab(3);
  lab.elect(1);
  lab.isolate(2);
  auto const index = lab.propose(1, "a");
  lab.deliver_all();  // committed by 1 and 3
  lab.crash(3);
  lab.damage(3, *index);
  lab.restart(3);
  lab.crash(1);
  lab.heal();
  bool const is_elected = lab.elect(2) || lab.elect(3);
  bool const was_damaged = lab.core(3).is_damaged();
  lab.restart(1);
  bool const is_led = lab.elect(1);
  lab.run(5);
  bool const is_whole = !lab.core(3).is_damaged() && lab.core(3).durable() == lab.core(1).commit();
  return lab.verdict(!is_elected && is_led && was_damaged && is_whole,
                     "the damaged member took part too early or never");
}

std::string a_damaged_member_is_not_whole_before_all_it_acknowledged_is_back() {
  Lab lab(3, {.append_bytes_max = 1});
  lab.elect(1);
  auto const first = lab.propose(1, "a");
  lab.deliver_all();
  lab.isolate(2);
  for (auto const* command : {"b", "c", "d"}) {
    lab.propose(1, command);
    lab.deliver_all();
  }
  lab.crash(3);
  lab.damage(3, *first);
  lab.restart(3);
  lab.hold([first](Raft_message const& message) {
    return message.to.value == 3 && !message.entries.empty() && message.index >= *first;
  });
  lab.run(5);  // 3 gets "a" back, and no more
  bool const has_first = lab.core(3).durable() == *first;
  lab.crash(1);
  lab.release();
  lab.heal();
  bool const is_elected = lab.elect(2);
  return lab.verdict(has_first && !is_elected, "elected without what was committed");
}

}  // namespace pstorage::mds::raft
