#include <algorithm>

#include "core/mutant.h"
#include "mds/state/chunks.h"
#include "mds/state/commands.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

std::vector<Chunk_id> chunks_of(Database& database, File_id file) {
  std::vector<Chunk_id> chunks;
  Rows rows(database, "SELECT id FROM chunk WHERE file = ? ORDER BY position");
  rows.bind(1, file);
  while (rows.next()) chunks.push_back(Chunk_id{rows.u64(0)});
  return chunks;
}

/// Drops the unreachable replicas of one chunk as far as a sealed in-sync one remains. False: an
/// in-sync replica stays that the new epoch has not reached.
bool drop_unreachable(Context& context, Chunk_row& chunk, Attribute_set const& attributes,
                      std::vector<Cs_id> const& unreachable, bool& changed) {
  auto const is_unreachable = [&](Replica_row const& replica) {
    return std::find(unreachable.begin(), unreachable.end(), replica.cs) != unreachable.end();
  };
  bool const keeps_one =
      std::any_of(chunk.replicas.begin(), chunk.replicas.end(), [&](Replica_row const& replica) {
        return replica.state == proto::REPLICA_IN_SYNC && !is_unreachable(replica);
      });
  auto replicas = chunk.replicas;
  for (auto& replica : replicas) {
    if (!is_unreachable(replica)) continue;
    // The last up-to-date replicas are never dropped to make progress: the chunk waits for them.
    if (replica.state == proto::REPLICA_IN_SYNC && !keeps_one) continue;
    replica.state = proto::REPLICA_STALE;
  }
  changed = replicas != chunk.replicas;
  if (changed) change_replicas(context, chunk, std::move(replicas), attributes);
  return keeps_one;
}

/// Sends a reader away that may not know it yet.
void revoke_reader(Context& context, File_id file, Session_id reader) {
  context.effects.lost_leases.push_back({reader, file, known_reading_epoch(context.database, file),
                                         describe_session(context.database, context.session)});
  if (!PS_MUTANT(forget_the_readers)) note_revocation(context.database, file, reader);
}

/// Readers that stand in the way of the asker's exclusive lease: refused, or sent away by force.
Applied end_readers(Context& context, proto::Open_file const& command, Inode const& inode) {
  for (auto const reader : readers_of(context.database, inode.id)) {
    if (reader != context.session && !command.force()) {
      return failure(Errc::busy,
                     "'" + name_for_people(context.database, command.path(), inode.id) +
                         "' is being read by " + describe_session(context.database, reader) +
                         ": stop it there, or take it over with 'pstorage revoke " +
                         name_for_people(context.database, command.path(), inode.id) + "'");
    }
    if (reader != context.session) revoke_reader(context, inode.id, reader);
    context.database.run("DELETE FROM reader WHERE file = ? AND session = ?", inode.id, reader);
  }
  return success();
}

/// May the file be opened only to make good that its last writer left without closing?
Applied check_settling(Context& context, std::string const& path, File_id file,
                       std::optional<Lease_row> const& lease) {
  if (!lease) {
    return failure(Errc::refused, "'" + path +
                                      "' was closed by its last writer: there is nothing "
                                      "to make good");
  }
  if (!lease->session) return success();
  return failure(Errc::busy, "'" + name_for_people(context.database, path, file) +
                                 "' is in use by " +
                                 describe_session(context.database, lease->session));
}

/// It serves nobody, so nobody has to wait for it.
void tell_settler(Context& context, Lease_row const& lease) {
  if (lease.session == context.session) return;
  context.effects.lost_leases.push_back({lease.session, lease.file, lease.epoch,
                                         describe_session(context.database, context.session)});
}

void grant(Context& context, Inode const& inode, Epoch epoch, proto::Lease& granted) {
  fill_file(context.database, inode, {}, *granted.mutable_file());
  granted.set_epoch(epoch.value);
  fill_map(context.database, inode.id, *granted.mutable_map());
}

/// An epoch to read under. That of the last writer, so that whoever reads already is not disturbed.
Outcome<Epoch> reading_epoch(Context& context, Inode const& inode, std::string const& path) {
  auto& database = context.database;
  if (auto const lease = load_lease(database, inode.id)) {
    if (lease->user() && lease->sealed) return lease->epoch;
    if (lease->user()) {
      return failure(Errc::busy, "'" + path + "' is being opened by " +
                                     describe_session(database, lease->user()));
    }
    return failure(Errc::refused, "'" + path +
                                      "' was not closed by its last writer: it has to be "
                                      "opened for writing first");
  }
  auto const known = database.number("SELECT epoch FROM reading WHERE file = ?", 0, inode.id);
  if (known != 0) return Epoch{static_cast<std::uint32_t>(known)};
  Epoch const epoch{static_cast<std::uint32_t>(next_counter(database, "epoch"))};
  database.run("INSERT INTO reading(file, epoch) VALUES(?, ?)", inode.id, epoch);
  return epoch;
}

Applied open_shared(Context& context, proto::Open_file const& command, Inode const& inode,
                    proto::Lease& granted) {
  auto const lease = load_lease(context.database, inode.id);
  if (lease && lease->user()) {
    return failure(Errc::busy, "'" + name_for_people(context.database, command.path(), inode.id) +
                                   "' is in use by " +
                                   describe_session(context.database, lease->user()) +
                                   ": stop it there");
  }
  // Refused when whoever wrote it last may still be doing so.
  PS_TRY(
      auto const epoch,
      reading_epoch(context, inode, name_for_people(context.database, command.path(), inode.id)));
  add_reader(context, inode.id, context.session);
  grant(context, inode, epoch, granted);
  granted.set_previous_epoch(epoch.value);
  granted.set_shared(true);
  granted.set_sealed(true);
  granted.set_clean(true);
  return success();
}

}  // namespace

void grant_new_file(Context& context, Inode& inode, proto::Lease& granted) {
  Lease_row lease;
  lease.file = inode.id;
  lease.session = context.session;
  lease.epoch = Epoch{static_cast<std::uint32_t>(next_counter(context.database, "epoch"))};
  lease.sealed = true;
  lease.fenced = true;
  store_lease(context, lease);
  grant(context, inode, lease.epoch, granted);
  granted.set_sealed(true);
  granted.set_clean(true);
}

Applied apply_open_file(Context& context, proto::Open_file const& command,
                        proto::Mds_reply& reply) {
  auto& database = context.database;
  PS_TRY(auto inode, resolve_file(database, command.path()));
  if (command.shared()) return open_shared(context, command, inode, *reply.mutable_lease());
  auto const old = load_lease(database, inode.id);
  if (command.read_only()) {
    PS_TRY(auto const epoch, reading_epoch(context, inode, command.path()));
    auto& lease = *reply.mutable_lease();
    fill_file(database, inode, {}, *lease.mutable_file());
    lease.set_epoch(epoch.value);
    lease.set_is_live(old.has_value());
    fill_map(database, inode.id, *lease.mutable_map());
    return success();
  }
  if (command.settle()) PS_CHECK(check_settling(context, command.path(), inode.id, old));
  std::string previous;
  if (old && old->settling) tell_settler(context, *old);
  if (old && old->user() && old->user() != context.session) {
    previous = describe_session(database, old->session);
    if (!command.force()) {
      return failure(Errc::busy, "'" + name_for_people(context.database, command.path(), inode.id) +
                                     "' is in use by " + previous +
                                     ": stop it there, or take it over with 'pstorage revoke " +
                                     name_for_people(context.database, command.path(), inode.id) +
                                     "'");
    }
    context.effects.lost_leases.push_back(
        {old->session, inode.id, old->epoch, describe_session(database, context.session)});
    note_revocation(database, inode.id, old->session);
  }
  PS_CHECK(end_readers(context, command, inode));
  Lease_row lease;
  lease.file = inode.id;
  lease.session = context.session;
  lease.epoch = Epoch{static_cast<std::uint32_t>(next_counter(database, "epoch"))};
  lease.fenced = !old;
  lease.settling = command.settle();
  store_lease(context, lease);
  auto const previous_epoch = old ? Epoch{} : known_reading_epoch(database, inode.id);
  database.run("DELETE FROM reading WHERE file = ?", inode.id);
  // What a writer that has gone without closing had put behind the end.
  if (old) remove_chunks_from(context, inode, inode.positions());
  store_inode(database, inode);
  if (!previous.empty()) {
    add_event(context, "MDS", "WRN",
              "Lease of '" + path_of(database, inode.id) + "' taken over from " + previous +
                  " by " + describe_session(database, context.session));
  }
  auto& granted = *reply.mutable_lease();
  grant(context, inode, lease.epoch, granted);
  granted.set_previous_holder(previous);
  granted.set_clean(!old);
  granted.set_previous_epoch(previous_epoch.value);
  for (auto const former : revoked_sessions(database, inode.id)) {
    if (former != context.session) granted.add_previous_sessions(former.value);
  }
  return success();
}

Applied apply_finish_seal(Context& context, proto::Finish_seal const& command,
                          proto::Mds_reply& reply) {
  PS_TRY(auto lease, held_lease(context, command.file(), command.epoch()));
  auto const inode = load_inode(context.database, lease.file);
  if (!inode) return failure(Errc::not_found, "the file has been removed");
  auto& map = *reply.mutable_map();
  map.set_file(lease.file.value);
  bool complete = true;
  std::vector<Cs_id> unreachable;
  for (auto const cs : command.unreachable()) unreachable.push_back(Cs_id{cs});
  std::uint64_t dropped = 0;
  if (!unreachable.empty()) {
    for (auto const id : chunks_of(context.database, lease.file)) {
      auto chunk = load_chunk(context.database, id);
      if (!chunk) continue;
      bool changed = false;
      if (!drop_unreachable(context, *chunk, inode->attributes, unreachable, changed)) {
        complete = false;
      }
      if (changed) {
        ++dropped;
        add_to_map(*chunk, map);
      }
    }
  }
  add_servers(context.database, map);
  if (dropped != 0) {
    add_event(context, "MDS", "WRN",
              "Take-over of '" + path_of(context.database, lease.file) + "': " +
                  std::to_string(dropped) + " chunks go on without unreachable chunk servers");
  }
  end_revocation(context.database, lease.file);
  lease.sealed = true;
  lease.fenced = lease.fenced || complete;
  store_lease(context, lease);
  return success();
}

Applied apply_close_file(Context& context, proto::Close_file const& command) {
  if (command.shared()) {
    remove_reader(context, File_id{command.file()}, context.session);
    return success();
  }
  PS_TRY(auto const lease, held_lease(context, command.file(), command.epoch()));
  if (auto inode = load_inode(context.database, lease.file); inode && command.has_change()) {
    change_inode(context, *inode, command.change());
    remove_chunks_from(context, *inode, inode->positions());
    store_inode(context.database, *inode);
  }
  // An unsealed holder has written nothing itself: whether earlier ones may is in `fenced`.
  end_lease(context, lease, !command.unsettled() || PS_MUTANT(close_unsettled_as_clean));
  return success();
}

Applied apply_revoke(Context& context, proto::Revoke const& command) {
  PS_TRY(auto const inode, resolve_file(context.database, command.path()));
  auto lease = load_lease(context.database, inode.id);
  auto const readers = readers_of(context.database, inode.id);
  if (!is_in_use(context.database, inode.id)) {
    return failure(Errc::not_found, "'" + command.path() + "' is not in use by anybody");
  }
  for (auto const reader : readers) {
    revoke_reader(context, inode.id, reader);
    remove_reader(context, inode.id, reader);
  }
  if (!lease || !lease->user()) {
    add_event(context, "MDS", "WRN",
              "'" + command.path() + "' taken from " + std::to_string(readers.size()) +
                  (readers.size() == 1 ? " reader by " : " readers by ") +
                  describe_session(context.database, context.session));
    return success();
  }
  auto const holder = describe_session(context.database, lease->session);
  auto const asker = describe_session(context.database, context.session);
  context.effects.lost_leases.push_back({lease->session, inode.id, lease->epoch, asker});
  note_revocation(context.database, inode.id, lease->session);
  // A new epoch, so that what the old holder still asks of us is stale.
  lease->epoch = Epoch{static_cast<std::uint32_t>(next_counter(context.database, "epoch"))};
  lease->sealed = false;
  end_lease(context, *lease, false);
  add_event(context, "MDS", "WRN",
            "Lease of '" + command.path() + "' revoked from " + holder + " by " + asker);
  return success();
}

}  // namespace pstorage::mds
