// The planted bugs of mds/raft (core/mutant.h). sim_mds --mutants must find each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pstorage::mds::raft {

/// Random seeds that may be spent on each, after the scripted schedules.
inline constexpr std::uint64_t seeds_a_mutant = 300;

inline std::vector<std::string> const planted = {
    "vote_for_a_shorter_log",
    "vote_twice",
    "vote_is_not_persisted",
    "votes_leave_before_they_are_durable",
    "acks_leave_before_they_are_durable",
    "obey_an_older_term",
    "count_acks_of_older_terms",
    "count_what_is_not_durable_here",
    "hand_out_what_is_not_durable",
    "a_voided_write_counts",
    "commit_an_older_term_by_counting",
    "commit_what_is_not_verified",
    "acknowledge_what_is_not_verified",
    "heartbeats_commit_what_they_like",
    "keep_conflicting_entries",
    "keep_truncated_configuration",
    "learners_count",
    "change_members_before_the_first_commit",
    "two_changes_at_once",
    "a_learner_trusts_its_leader_for_ever",
    "snapshot_keeps_the_configuration",
    "snapshot_with_the_last_term",
    "snapshot_drops_what_is_behind_it",
    "logs_agree_where_they_begin",
    "read_without_a_quorum",
    "read_before_the_first_commit",
    "an_old_heartbeat_confirms_a_read",
    "a_damaged_member_votes",
    "repaired_too_early",
    "lead_without_a_quorum",
    "report_before_the_sync",
    "a_segment_without_its_base",
    "cut_before_the_base_is_durable",
    "damage_in_the_middle_is_ignored",
    "damage_is_forgotten",
};

}  // namespace pstorage::mds::raft
