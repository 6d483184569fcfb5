// Scripted schedules: interleavings that random faults hardly ever meet. Run by raft_test, and by
// sim_mds --mutants for the planted bugs that only they find.
#pragma once

#include <string>
#include <vector>

namespace pstorage::mds::raft {

struct Schedule {
  char const* name;      // what must hold, as a sentence
  std::string (*run)();  // empty, or what was broken
};

std::vector<Schedule> const& schedules();

// schedules_election.cc
std::string a_vote_that_is_lost_in_a_crash_was_never_given();
std::string a_restarted_member_does_not_vote_twice_in_a_term();
std::string a_transfer_does_not_buy_a_second_vote();
std::string a_damaged_member_neither_votes_nor_leads_until_it_is_whole();
std::string a_damaged_member_is_not_whole_before_all_it_acknowledged_is_back();
// schedules_log.cc
std::string an_entry_of_an_older_term_is_not_committed_by_counting();
std::string an_acknowledgement_of_an_older_term_does_not_count();
std::string a_stale_suffix_is_never_acknowledged();
std::string a_write_that_was_voided_under_way_does_not_count();
std::string a_follower_commits_only_what_it_has_verified();
std::string a_snapshot_that_ends_in_a_later_term_is_installed();
std::string a_snapshot_keeps_acknowledged_entries_behind_it();
std::string a_member_that_conflicts_where_the_log_begins_gets_a_snapshot();
// schedules_disk.cc
std::string a_segment_is_removed_only_when_the_next_one_has_its_base();
std::string damage_in_the_middle_is_remembered();
// schedules_members.cc
std::string a_new_leader_changes_no_members_before_its_first_commit();
std::string a_change_that_is_cut_off_is_rolled_back();
std::string a_member_that_was_cut_off_learns_of_its_removal_and_stays_quiet();
std::string a_learner_neither_votes_nor_counts();
std::string a_learner_that_hears_no_leader_helps_to_elect_one();
std::string a_snapshot_carries_the_members();
std::string a_deposed_leader_answers_no_read();

}  // namespace pstorage::mds::raft
