// Replicas that go away for good: rm-cs, surplus replicas, chunks that nobody knows any more.
#include <algorithm>
#include <map>
#include <set>

#include "mds/state/chunks.h"
#include "mds/state/commands.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

std::string cs_text(std::uint32_t cs) { return "CS#" + std::to_string(cs); }

std::string count_text(std::uint64_t count, std::string const& word) {
  return std::to_string(count) + " " + word + (count == 1 ? "" : "s");
}

bool may_take_replicas(Candidate const& candidate) {
  return !candidate.releasing && (candidate.state == "active" || candidate.state == "inactive");
}

/// Chunks whose only up-to-date replica is on `cs`. What is on servers that have been given up does
/// not count.
std::uint64_t unique_chunks(Database& database, std::uint32_t cs) {
  return database.number(
      "SELECT count(*) FROM replica AS own WHERE cs = ? AND state = 0 AND NOT EXISTS"
      " (SELECT 1 FROM replica AS other WHERE other.chunk = own.chunk AND other.cs <> own.cs"
      " AND other.state = 0 AND other.cs NOT IN (SELECT cs FROM release WHERE forced = 1)"
      " AND other.cs NOT IN (SELECT id FROM cs WHERE state = 'dropped'))",
      0, cs);
}

/// Are there enough servers in different failure domains for everything that `cs` holds?
Applied check_domains(Context& context, std::uint32_t cs,
                      std::vector<Candidate> const& candidates) {
  Rows rows(context.database,
            "SELECT norm, domain, min(inode.id), count(*) FROM replica"
            " JOIN chunk ON chunk.id = replica.chunk JOIN inode ON inode.id = chunk.file"
            " WHERE cs = ? GROUP BY norm, domain ORDER BY norm DESC");
  rows.bind(1, cs);
  while (rows.next()) {
    auto const domain = static_cast<Failure_domain>(rows.u64(1));
    std::set<std::string> domains;
    for (auto const& candidate : candidates) {
      if (candidate.cs.value != cs && may_take_replicas(candidate)) {
        domains.insert(domain_key(domain, candidate));
      }
    }
    if (domains.size() >= rows.u64(0)) continue;
    return failure(
        Errc::no_placement,
        "cannot release " + cs_text(cs) + ": " + count_text(rows.u64(3), "chunk") + " (of '" +
            path_of(context.database, File_id{rows.u64(2)}) + "' and others like it) need" +
            (rows.u64(3) == 1 ? "s " : " ") + count_text(rows.u64(0), "replica") +
            " on different " + name_of(domain) + "s and only " + std::to_string(domains.size()) +
            " would remain: add chunk servers with 'pstorage make-cs', or lower the replicas "
            "attribute first");
  }
  return success();
}

Applied check_room(Context& context, std::uint32_t cs, std::vector<Candidate> const& candidates) {
  auto const rules = placement_rules(context.database);
  std::uint64_t available = 0;
  std::uint64_t used = 0;
  for (auto const& candidate : candidates) {
    auto const free = std::min(candidate.free_bytes, candidate.total_bytes);
    if (candidate.cs.value == cs) {
      used = candidate.total_bytes - free;
    } else if (may_take_replicas(candidate)) {
      auto const margin = std::max(rules.free_margin_bytes,
                                   candidate.total_bytes / 100 * rules.fill_margin_percent);
      available += free > margin ? free - margin : 0;
    }
  }
  // The disk may hold more than chunks; chunks may be sparse: the smaller figure is the bound.
  auto const mapped = context.database.number(
      "SELECT sum(chunk_size) FROM replica JOIN chunk ON chunk.id = replica.chunk"
      " JOIN inode ON inode.id = chunk.file WHERE cs = ?",
      0, cs);
  auto const needed = std::min(used, mapped);
  if (needed <= available) return success();
  return failure(Errc::no_space, "cannot release " + cs_text(cs) + ": it holds " +
                                     std::to_string(needed >> 20) + " MB and the others have " +
                                     std::to_string(available >> 20) +
                                     " MB of room: free space or add chunk servers first");
}

Applied check_release(Context& context, std::uint32_t cs, std::string const& state, bool forced) {
  if (forced) {
    if (state != "active") return success();
    return failure(Errc::refused, cs_text(cs) +
                                      " is active: release it without --force, so that "
                                      "its replicas are moved first (or stop its csd)");
  }
  auto const unique = unique_chunks(context.database, cs);
  if (unique != 0 && state != "active") {
    return failure(Errc::refused, "cannot release " + cs_text(cs) + ": it is " + state + " and " +
                                      count_text(unique, "chunk") +
                                      " would lose the only up-to-date replica: start its csd "
                                      "again, or give that data up with --force");
  }
  auto const candidates = load_candidates(context.database, context.space);
  PS_CHECK(check_domains(context, cs, candidates));
  return check_room(context, cs, candidates);
}

/// What a removal has to know about a server.
struct Standing {
  bool is_active = false;    // and staying
  bool is_given_up = false;  // --force, dropped or unknown
};

Standing standing_of(Database& database, Cs_id cs) {
  Rows rows(database,
            "SELECT state, release.cs IS NOT NULL, forced FROM cs"
            " LEFT JOIN release ON release.cs = cs.id WHERE cs.id = ?");
  rows.bind(1, cs);
  if (!rows.next() || rows.text(0) == "dropped") return {false, true};
  return {rows.text(0) == "active" && !rows.flag(1), rows.flag(1) && rows.flag(2)};
}

/// The rule of rules: what stays must be enough by itself.
bool may_remove(Database& database, std::vector<Replica_row> const& removed,
                std::vector<Replica_row> const& remaining, std::uint32_t norm) {
  std::size_t in_sync = 0;
  std::size_t live = 0;
  for (auto const& replica : remaining) {
    if (replica.state != proto::REPLICA_IN_SYNC) continue;
    auto const standing = standing_of(database, replica.cs);
    in_sync += standing.is_given_up ? 0 : 1;
    live += standing.is_active ? 1 : 0;
  }
  bool const is_forced = std::all_of(removed.begin(), removed.end(), [&](Replica_row const& one) {
    return standing_of(database, one.cs).is_given_up;
  });
  if (is_forced) return in_sync != 0;
  bool const is_syncing = std::any_of(removed.begin(), removed.end(), [](Replica_row const& one) {
    return one.state == proto::REPLICA_SYNCING;
  });
  return !is_syncing && live >= norm;
}

}  // namespace

Applied apply_release_cs(Context& context, proto::Release_cs const& command) {
  auto& database = context.database;
  auto const cs = command.cs();
  std::string state;
  std::string host;
  {
    Rows rows(database,
              "SELECT state, host.name FROM cs LEFT JOIN host ON host.id = cs.host"
              " WHERE cs.id = ?");
    rows.bind(1, cs);
    if (!rows.next() || rows.text(0) == "dropped") {
      return failure(Errc::not_found, cs_text(cs) +
                                          " is not a chunk server of this cluster: see "
                                          "'pstorage list-services --all'");
    }
    state = rows.text(0);
    host = rows.text(1);
  }
  bool const is_releasing = database.number("SELECT 1 FROM release WHERE cs = ?", 0, cs) != 0;
  context.effects.servers.insert(Cs_id{cs});
  context.effects.replicas_changed = true;
  if (command.cancel()) {
    if (!is_releasing) return failure(Errc::refused, cs_text(cs) + " is not being released");
    database.run("DELETE FROM release WHERE cs = ?", cs);
    add_event(context, "MDS", "INF", cs_text(cs) + " on " + host + " stays: rm-cs was cancelled");
    return success();
  }
  if (is_releasing && !command.forced()) return success();
  PS_CHECK(check_release(context, cs, state, command.forced()));
  database.run("INSERT OR REPLACE INTO release(cs, forced, since_ms) VALUES(?, ?, ?)", cs,
               command.forced(), context.wall_ms);
  add_event(context, "MDS", "INF",
            cs_text(cs) + " on " + host +
                (command.forced() ? " is given up (rm-cs --force)" : " is being released (rm-cs)"));
  return success();
}

Applied apply_remove_replicas(Context& context, proto::Remove_replicas const& command) {
  for (auto const& one : command.chunks()) {
    auto chunk = load_chunk(context.database, Chunk_id{one.chunk()});
    if (!chunk || chunk->version.value != one.version()) continue;  // overtaken by a change
    auto const inode = load_inode(context.database, chunk->file);
    if (!inode) continue;
    std::vector<Replica_row> removed;
    std::vector<Replica_row> remaining;
    for (auto const& replica : chunk->replicas) {
      bool const is_named = std::find(one.servers().begin(), one.servers().end(),
                                      replica.cs.value) != one.servers().end();
      (is_named ? removed : remaining).push_back(replica);
    }
    if (removed.empty() ||
        !may_remove(context.database, removed, remaining, inode->attributes.norm)) {
      continue;
    }
    change_replicas(context, *chunk, std::move(remaining), inode->attributes);
  }
  return success();
}

Applied apply_drop_cs(Context& context, proto::Drop_cs const& command) {
  auto& database = context.database;
  auto const cs = command.cs();
  Rows release(database, "SELECT forced FROM release WHERE cs = ?");
  release.bind(1, cs);
  if (!release.next()) return success();  // cancelled
  auto const left = database.number("SELECT count(*) FROM replica WHERE cs = ?", 0, cs);
  // By force only what exists nowhere else may remain: it is recorded as being here, so that
  // reads of it wait instead of finding zeros.
  if (left != 0 && (!release.flag(0) || left != unique_chunks(database, cs))) return success();
  database.run("DELETE FROM release WHERE cs = ?", cs);
  database.run("DELETE FROM garbage WHERE cs = ?", cs);
  database.run("UPDATE cs SET state = 'dropped' WHERE id = ?", cs);
  context.effects.servers.insert(Cs_id{cs});
  add_event(context, "MDS", left == 0 ? "INF" : "ERR",
            cs_text(cs) + " has been removed from the cluster" +
                (left == 0 ? ""
                           : "; " + count_text(left, "chunk") +
                                 " had the only up-to-date replica there and cannot be read"));
  note_health(context);
  return success();
}

Applied apply_add_garbage(Context& context, proto::Add_garbage const& command) {
  // Ids are never given twice: a chunk below the counter without a replica here was removed.
  auto const newest = context.database.number("SELECT number FROM meta WHERE name = 'chunk'", 0);
  for (auto const chunk : command.chunks()) {
    bool const is_known =
        context.database.number("SELECT 1 FROM replica WHERE chunk = ? AND cs = ?", 0, chunk,
                                command.cs()) != 0;
    if (is_known || chunk > newest) continue;
    context.database.run("INSERT OR IGNORE INTO garbage(chunk, cs) VALUES(?, ?)", chunk,
                         command.cs());
    context.effects.garbage.insert(Cs_id{command.cs()});
  }
  return success();
}

}  // namespace pstorage::mds
