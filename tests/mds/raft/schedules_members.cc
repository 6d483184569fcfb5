// Changes of the membership, and who may answer reads.
#include "tests/mds/raft/lab.h"
#include "tests/mds/raft/schedules.h"

namespace pstorage::mds::raft {
namespace {

Change add(std::uint64_t member) { return {Change::Kind::add_learner, Member_id{member}, ""}; }
Change promote(std::uint64_t member) { return {Change::Kind::promote, Member_id{member}, ""}; }
Change remove(std::uint64_t member) { return {Change::Kind::remove, Member_id{member}, ""}; }

}  // namespace

std::string a_new_leader_changes_no_members_before_its_first_commit() {
  Lab lab(3);
  lab.hold([](Raft_message const& message) { return message.kind == Message_kind::append; });
  lab.elect(1);
  bool const is_refused = lab.core(1).change(remove(3)).has_error();
  for (auto& message : lab.release()) lab.deliver(std::move(message));
  lab.deliver_all();
  bool const is_accepted = lab.core(1).change(remove(3)).has_value();
  bool const is_second_refused = lab.core(1).change(add(4)).has_error();
  return lab.verdict(is_refused && is_accepted && is_second_refused,
                     "changes that two leaders could make at the same time");
}

std::string a_change_that_is_cut_off_is_rolled_back() {
  Lab lab(3);
  lab.elect(1);
  lab.isolate(1);
  bool const is_appended = lab.core(1).change(remove(3)).has_value();
  lab.turn(1);
  lab.elect(2);
  lab.heal();
  lab.run(30);
  return lab.verdict(is_appended && lab.core(1).configuration().members.size() == 3 &&
                         lab.core(1).configuration() == lab.core(2).configuration(),
                     "a change that was never committed is still in force");
}

std::string a_member_that_was_cut_off_learns_of_its_removal_and_stays_quiet() {
  Lab lab(3);
  lab.elect(1);
  lab.isolate(3);
  bool const is_removed = lab.core(1).change(remove(3)).has_value();
  lab.turn(1);
  lab.deliver_all();
  lab.run(2);
  lab.heal();
  auto const term = lab.core(1).term();
  lab.run(100);
  bool const is_quiet = lab.core(1).is_leader() && lab.core(1).term() == term;
  return lab.verdict(is_removed && is_quiet && lab.core(2).configuration().members.size() == 2,
                     "a removed member deposes the leader");
}

std::string a_learner_neither_votes_nor_counts() {
  Lab lab(3);
  lab.elect(1);
  lab.add(4);
  bool const is_added = lab.core(1).change(add(4)).has_value();
  lab.turn(1);
  lab.deliver_all();
  lab.run(3);
  auto const index = lab.core(1).commit();
  for (std::uint64_t const other : {2, 3}) lab.cut(1, other);
  lab.propose(1, "a");
  lab.deliver_all();
  bool const has_it = lab.core(4).durable() > index;
  bool const is_waiting = lab.core(1).commit() == index;
  lab.heal();
  lab.run(3);
  bool const is_promoted = lab.core(1).change(promote(4)).has_value();
  lab.turn(1);
  lab.deliver_all();
  return lab.verdict(
      is_added && has_it && is_waiting && is_promoted && lab.core(1).configuration().quorum() == 3,
      "a learner counts, or cannot be promoted");
}

std::string a_learner_that_hears_no_leader_helps_to_elect_one() {
  Lab lab(3);
  lab.elect(1);
  lab.add(4);
  bool const is_added = lab.core(1).change(add(4)).has_value();
  lab.turn(1);
  lab.run(5);
  // 4 is promoted with the votes of 1, 2 and 3, does not hear of it, and is needed when 1 is gone.
  lab.cut(1, 4);
  bool const is_promoted = lab.core(1).change(promote(4)).has_value();
  lab.turn(1);
  lab.deliver_all();
  lab.run(3);
  bool const is_unaware = !lab.core(4).configuration().is_voter(Member_id{4});
  lab.crash(1);
  lab.tick(4, 50);
  lab.forget_leaders();
  lab.core(2).campaign();
  lab.turn(2);
  lab.deliver_all();
  return lab.verdict(is_added && is_promoted && is_unaware && lab.core(2).is_leader() &&
                         lab.core(4).leader() == Member_id{2},
                     "a learner trusts a leader that is gone for ever");
}

std::string a_snapshot_carries_the_members() {
  Lab lab(3);
  lab.elect(1);
  lab.run(2);
  bool const is_added = lab.core(1).change(add(4)).has_value();
  lab.turn(1);
  lab.deliver_all();
  lab.propose(1, "a");
  lab.deliver_all();
  lab.core(1).cut(lab.core(1).commit());
  lab.add(4);
  lab.run(3);
  bool const is_needed = lab.needs_snapshot(4);
  bool const is_installed = lab.install(4, lab.snapshot_of(1), 1, 1);
  lab.crash(4);
  lab.restart(4);
  return lab.verdict(is_added && is_needed && is_installed &&
                         lab.core(4).configuration() == lab.core(1).configuration(),
                     "a new member does not know who takes part");
}

std::string a_deposed_leader_answers_no_read() {
  Lab lab(3);
  lab.elect(1);
  lab.run(3);
  lab.isolate(1);
  lab.elect(2);
  lab.propose(2, "a");
  lab.deliver_all();
  auto const id = lab.core(1).read();
  lab.turn(1);
  lab.run(30);
  auto const reads = lab.reads(1);
  bool const is_refused = reads.size() == 1 && reads[0].id == id.value() && !reads[0].is_ok;
  return lab.verdict(is_refused && !lab.core(1).is_leader(), "a stale read was answered");
}

std::vector<Schedule> const& schedules() {
#define PS_SCHEDULE(name) \
  Schedule { #name, name }
  static std::vector<Schedule> const all = {
      PS_SCHEDULE(a_vote_that_is_lost_in_a_crash_was_never_given),
      PS_SCHEDULE(a_restarted_member_does_not_vote_twice_in_a_term),
      PS_SCHEDULE(a_transfer_does_not_buy_a_second_vote),
      PS_SCHEDULE(a_damaged_member_neither_votes_nor_leads_until_it_is_whole),
      PS_SCHEDULE(a_damaged_member_is_not_whole_before_all_it_acknowledged_is_back),
      PS_SCHEDULE(an_entry_of_an_older_term_is_not_committed_by_counting),
      PS_SCHEDULE(an_acknowledgement_of_an_older_term_does_not_count),
      PS_SCHEDULE(a_stale_suffix_is_never_acknowledged),
      PS_SCHEDULE(a_write_that_was_voided_under_way_does_not_count),
      PS_SCHEDULE(a_follower_commits_only_what_it_has_verified),
      PS_SCHEDULE(a_snapshot_that_ends_in_a_later_term_is_installed),
      PS_SCHEDULE(a_snapshot_keeps_acknowledged_entries_behind_it),
      PS_SCHEDULE(a_member_that_conflicts_where_the_log_begins_gets_a_snapshot),
      PS_SCHEDULE(a_segment_is_removed_only_when_the_next_one_has_its_base),
      PS_SCHEDULE(damage_in_the_middle_is_remembered),
      PS_SCHEDULE(a_new_leader_changes_no_members_before_its_first_commit),
      PS_SCHEDULE(a_change_that_is_cut_off_is_rolled_back),
      PS_SCHEDULE(a_member_that_was_cut_off_learns_of_its_removal_and_stays_quiet),
      PS_SCHEDULE(a_learner_neither_votes_nor_counts),
      PS_SCHEDULE(a_learner_that_hears_no_leader_helps_to_elect_one),
      PS_SCHEDULE(a_snapshot_carries_the_members),
      PS_SCHEDULE(a_deposed_leader_answers_no_read),
  };
#undef PS_SCHEDULE
  return all;
}

}  // namespace pstorage::mds::raft
