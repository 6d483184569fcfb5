// The words of the Raft core: members, entries, messages, and what one step asks of its shell.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/ids.h"
#include "core/result.h"

namespace pstorage::mds::raft {

/// Of a repository: random, made with it. A wiped repository is a new member. 0 = none.
using Member_id = Strong_id<struct Member_tag, std::uint64_t>;

enum class Member_kind : std::uint8_t {
  voter = 1,   // counts
  learner = 2  // gets the log, counts for nothing
};

struct Member {
  Member_id id;
  Member_kind kind = Member_kind::voter;
  std::string address;  // for the shell; the core does not look at it
  bool operator==(Member const&) const = default;
};

/// Who takes part. In force from the moment its entry is in the log, committed or not.
struct Configuration {
  std::vector<Member> members;  // in order of id

  bool operator==(Configuration const&) const = default;
  Member const* find(Member_id id) const;
  bool is_voter(Member_id id) const;
  std::size_t voters() const;
  /// Votes or copies that a decision needs.
  std::size_t quorum() const { return voters() / 2 + 1; }
  void add(Member member);
  void remove(Member_id id);
};

/// u32 count, then per member u64 id, u8 kind, u32 length, address. Little endian.
std::string encode_configuration(Configuration const& configuration);
/// Errors: corrupt.
Result<Configuration> decode_configuration(Bytes bytes);

enum class Entry_kind : std::uint8_t {
  command = 1,       // for the state machine
  begin = 2,         // first of a term; empty
  configuration = 3  // encode_configuration()
};

struct Log_entry {
  std::uint64_t index = 0;  // from 1
  std::uint64_t term = 0;
  Entry_kind kind = Entry_kind::command;
  Slice bytes;
};

/// What an entry costs on the wire and in memory, roughly.
inline std::size_t cost_of(Log_entry const& entry) { return entry.bytes.size() + 24; }

/// A state of the state machine: everything up to `index` is in it. Also where a log begins.
struct Snapshot {
  std::uint64_t index = 0;
  std::uint64_t term = 0;       // of the entry at index
  Configuration configuration;  // as of index
  bool operator==(Snapshot const&) const = default;
};

/// What a member must never forget.
struct Hard_state {
  std::uint64_t term = 0;
  Member_id vote;            // in this term
  std::uint64_t commit = 0;  // a hint: may be older than what was known
  // Damaged: entries up to repair_until, acknowledged in a term up to repair_term, are lost. Until
  // they are back the member neither votes nor leads: it would elect somebody who lacks them too.
  std::uint64_t repair_until = 0;
  std::uint64_t repair_term = 0;
  bool operator==(Hard_state const&) const = default;
};

enum class Message_kind : std::uint8_t {
  append = 1,       // index, log_term: the entry before `entries`; commit
  append_reply,     // index: acknowledged up to; or rejected with hint
  heartbeat,        // commit, context: the round
  heartbeat_reply,  // context
  pre_vote,         // index, log_term: last entry of the asker; term: the one it would begin
  pre_vote_reply,
  vote,
  vote_reply,
  read,         // context: the asker's id of the read
  read_reply,   // context, index; or rejected
  timeout_now,  // stand for election at once: the leader hands over
};

struct Raft_message {
  Message_kind kind = Message_kind::append;
  Member_id from{};
  Member_id to{};
  std::uint64_t term = 0;
  std::uint64_t index = 0;
  std::uint64_t log_term = 0;
  std::uint64_t commit = 0;
  std::uint64_t context = 0;
  bool is_reject = false;
  bool is_transfer = false;     // vote: asked for by the leader itself
  bool has_lost = false;        // replies: entries that it once acknowledged are gone
  std::uint64_t hint = 0;       // rejected append: try from here
  std::uint64_t hint_term = 0;  // the term it has there
  std::vector<Log_entry> entries{};
};

/// The end of a read() of this member.
struct Read_state {
  std::uint64_t id = 0;
  bool is_ok = false;       // false: ask again, perhaps somebody else
  std::uint64_t index = 0;  // to be applied before the state is read
};

enum class Raft_role : std::uint8_t { follower, pre_candidate, candidate, leader };

/// What one step asks of the shell. Readys are made durable in the order they came in; several may
/// be under way.
struct Ready {
  /// For persisted(). 0: nothing to make durable and nothing that waits for it.
  std::uint64_t token = 0;
  Hard_state hard;
  bool must_sync = false;  // `hard` (but for commit), install, truncate_from or entries are news
  std::optional<Snapshot> install;  // first: the log is empty and begins behind this
  std::uint64_t truncate_from = 0;  // second: entries from this index on are void; 0 = none
  std::vector<Log_entry> entries;   // third
  std::vector<Raft_message> messages_now;
  std::vector<Raft_message> messages_after;  // once this Ready is durable
  std::vector<Log_entry> committed;          // durable here and committed; each once, in order
  std::vector<Read_state> reads;
  std::vector<Member_id> snapshots_needed;  // the log does not reach back far enough for them
  bool has_stepped_down = false;            // was leader: what waits has an unknown outcome
};

}  // namespace pstorage::mds::raft
