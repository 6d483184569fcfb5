// What the daemon shows over HTTP, from memory and the committed state of this server.
#include "mds/server/event_rows.h"
#include "mds/server/metadata_server.h"

namespace pstorage::mds {

std::string Metadata_server::trouble() const {
  if (fatal_) return "the disk of the log or of the database has failed";
  if (stalled_) return "the disk of the database is full";
  if (!entries_.is_leader() && entries_.leader_address().empty())
    return "no master: fewer than half of the metadata servers can be reached";
  return {};
}

Replicated_log const& Metadata_server::entries() const { return entries_; }

bool Metadata_server::report(proto::Status_reply& status) {
  if (!state_ || !leads()) return false;
  fill_status(status);
  return true;
}

void Metadata_server::latest_events(unsigned count, proto::Events& events) {
  if (!state_) return;
  Rows rows(state_->database(),
            "SELECT number, time_ms, source, severity, text FROM event"
            " ORDER BY number DESC LIMIT ?");
  rows.bind(1, count);
  add_events(rows, events);
}

void Metadata_server::list_volumes(unsigned count, proto::File_list& volumes) {
  if (!state_) return;
  auto& database = state_->database();
  auto const directory = find_place(database, "/volumes");
  if (directory.has_error() || !directory.value().inode) return;
  Rows rows(database, "SELECT name, inode FROM dirent WHERE parent = ? ORDER BY name LIMIT ?");
  rows.bind(1, directory.value().inode->id);
  rows.bind(2, count);
  while (rows.next()) {
    auto const inode = load_inode(database, File_id{rows.u64(1)});
    if (!inode) continue;
    auto& volume = *volumes.add_files();
    fill_file(database, *inode, rows.text(0), volume);
    fill_use(database, *inode, volume);
  }
}

/// Of a volume with an image and snapshots its files count together; its holder has the image.
void Metadata_server::fill_use(Database& database, Inode const& inode, proto::File& volume) {
  if (auto const lease = load_lease(database, inode.id))
    volume.set_holder(describe_session(database, lease->user()));
  if (!inode.is_directory()) return;
  std::uint64_t chunks = 0;
  Rows rows(database, "SELECT inode FROM dirent WHERE parent = ?");
  rows.bind(1, inode.id);
  while (rows.next()) {
    auto const file = load_inode(database, File_id{rows.u64(0)});
    if (!file) continue;
    chunks += file->chunks;
    if (auto const lease = load_lease(database, file->id))
      volume.set_holder(describe_session(database, lease->user()));
  }
  volume.set_allocated_chunks(chunks);
}

}  // namespace pstorage::mds
