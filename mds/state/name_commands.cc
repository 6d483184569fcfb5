#include <algorithm>

#include "mds/state/chunks.h"
#include "mds/state/commands.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

constexpr std::size_t recursive_inodes_max = 1'000'000;

Applied check_properties(google::protobuf::Map<std::string, std::string> const& properties) {
  if (properties.size() > properties_max) {
    return failure(Errc::too_large, "at most " + std::to_string(properties_max) + " properties");
  }
  for (auto const& [name, value] : properties) {
    if (name.empty() || name.size() > property_bytes_max || value.size() > property_bytes_max) {
      return failure(Errc::too_large, "the name or value of a property is empty or too long");
    }
  }
  return success();
}

Applied store_properties(Context& context, File_id inode,
                         google::protobuf::Map<std::string, std::string> const& properties) {
  PS_CHECK(check_properties(properties));
  for (auto const& [name, value] : properties) {
    if (value.empty()) {
      context.database.run("DELETE FROM property WHERE inode = ? AND name = ?", inode, name);
    } else {
      context.database.run("INSERT OR REPLACE INTO property(inode, name, value) VALUES(?, ?, ?)",
                           inode, name, value);
    }
  }
  auto const count =
      context.database.number("SELECT count(*) FROM property WHERE inode = ?", 0, inode);
  if (count > properties_max) {
    return failure(Errc::too_large, "at most " + std::to_string(properties_max) + " properties");
  }
  return success();
}

/// The entries of the directory have changed.
void touch(Context& context, File_id directory) {
  context.database.run(
      "UPDATE inode SET modified_ms = ?, modified_sub_ns = 0, changed_ms = ? WHERE id = ?",
      context.wall_ms, context.wall_ms, directory);
}

/// What a target or a name must not be is checked by split_path; here only what it adds.
Applied check_symlink(proto::Create const& command) {
  bool const is_symlink = command.type() == proto::TYPE_SYMLINK;
  if (is_symlink != !command.target().empty() || command.target().size() > path_bytes_max) {
    return failure(Errc::bad_request, "a symbolic link has a target of at most " +
                                          std::to_string(path_bytes_max) + " bytes");
  }
  if (is_symlink && command.size() != 0) {
    return failure(Errc::bad_request, "a symbolic link has no size");
  }
  if (command.open() && command.type() != proto::TYPE_FILE) {
    return failure(Errc::bad_request, "only files can be opened");
  }
  return success();
}

/// In a directory with the set-group-id bit everything belongs to the directory's group.
void inherit_group(Inode const& directory, Inode& inode) {
  constexpr std::uint32_t set_group_id = 02000;
  if ((directory.mode & set_group_id) == 0) return;
  inode.gid = directory.gid;
  if (inode.is_directory()) inode.mode |= set_group_id;
}

Inode make_inode(Context& context, Inode const& directory, std::string const& name,
                 proto::File_type type) {
  Inode inode;
  inode.id = File_id{next_counter(context.database, "inode")};
  inode.type = type;
  inode.attributes = directory.attributes;
  inode.modified_ms = context.wall_ms;
  store_inode(context.database, inode);
  add_dirent(context.database, directory.id, name, inode.id);
  touch(context, directory.id);
  return inode;
}

/// Makes every missing directory above `path`.
Applied make_parents(Context& context, std::string const& path) {
  PS_TRY(auto const names, split_path(path));
  std::string walked;
  for (std::size_t i = 0; i + 1 < names.size(); ++i) {
    walked += "/" + names[i];
    PS_TRY(auto const place, find_place(context.database, walked));
    if (!place.inode) make_inode(context, place.directory, place.name, proto::TYPE_DIRECTORY);
  }
  return success();
}

/// One name less; with the last one the file itself goes, or stays until its user closes it.
/// `left`: the inode as it is then.
void drop_link(Context& context, Inode inode, proto::File& left) {
  inode.links = inode.is_directory() ? 0 : inode.links - 1;
  inode.changed_ms = context.wall_ms;
  left.set_id(inode.id.value);
  left.set_type(inode.type);
  left.set_links(inode.links);
  if (inode.links == 0 && !is_in_use(context.database, inode.id)) {
    delete_inode(context, std::move(inode));
    return;
  }
  store_inode(context.database, inode);
}

/// May `inode` be unlinked from `path`?
Applied check_removable(Context& context, Inode const& inode, std::string const& path) {
  if (inode.is_directory()) {
    if (has_entries(context.database, inode.id)) {
      return failure(Errc::not_empty, "the directory '" + path + "' is not empty");
    }
    return success();
  }
  return refuse_leased(context, inode.id, path, "remove");
}

/// Stores changed attributes of one inode and what follows from them for its chunks.
Applied store_attributes(Context& context, Inode& inode, std::string const& path,
                         proto::Attributes change, bool is_named) {
  if (!inode.is_directory() && change.chunk_size() != 0 &&
      change.chunk_size() != inode.attributes.chunk_size) {
    if (is_named) {
      return failure(Errc::refused, "the chunk-size of the existing file '" + path +
                                        "' cannot be changed: set it on the directory and create "
                                        "the file again");
    }
    change.set_chunk_size(0);  // -R: the files below keep theirs
  }
  auto const old = inode.attributes;
  PS_TRY(inode.attributes, changed_attributes(old, change));
  if (inode.attributes == old) return success();
  store_inode(context.database, inode);
  bool const has_news =
      inode.attributes.min != old.min || inode.attributes.waits_when_full != old.waits_when_full;
  if (has_news) context.effects.minimums.insert(inode.id);
  std::vector<Chunk_id> chunks;
  {
    Rows rows(context.database, "SELECT id FROM chunk WHERE file = ? ORDER BY position");
    rows.bind(1, inode.id);
    while (rows.next()) chunks.push_back(Chunk_id{rows.u64(0)});
  }
  for (auto const id : chunks) {
    if (auto const chunk = load_chunk(context.database, id)) {
      refresh_state(context.database, *chunk, inode.attributes);
    }
  }
  context.effects.replicas_changed = true;
  return success();
}

Applied store_attributes_below(Context& context, File_id top, proto::Attributes const& change) {
  std::vector<File_id> queue = {top};
  for (std::size_t at = 0; at < queue.size(); ++at) {
    std::vector<File_id> entries;
    {
      Rows rows(context.database, "SELECT inode FROM dirent WHERE parent = ? ORDER BY name");
      rows.bind(1, queue[at]);
      while (rows.next()) entries.push_back(File_id{rows.u64(0)});
    }
    for (auto const id : entries) {
      auto inode = load_inode(context.database, id);
      if (!inode) continue;
      PS_CHECK(store_attributes(context, *inode, {}, change, false));
      if (inode->is_directory()) queue.push_back(id);
    }
    if (queue.size() > recursive_inodes_max) {
      return failure(Errc::too_large, "too many directories below this one for -R");
    }
  }
  return success();
}

}  // namespace

Applied apply_create(Context& context, proto::Create const& command, proto::Mds_reply& reply) {
  if (command.size() > file_bytes_max) {
    return failure(Errc::too_large, "a file has at most 1P");
  }
  if (command.type() == proto::TYPE_DIRECTORY && command.size() != 0) {
    return failure(Errc::bad_request, "a directory has no size");
  }
  PS_CHECK(check_symlink(command));
  PS_CHECK(check_properties(command.properties()));
  if (command.parents()) PS_CHECK(make_parents(context, command.path()));
  PS_TRY(auto const place, find_place(context.database, command.path()));
  if (place.inode) {
    return failure(Errc::exists, "'" + command.path() + "' exists already");
  }
  PS_TRY(auto const attributes,
         changed_attributes(place.directory.attributes, command.attributes()));
  auto inode = make_inode(context, place.directory, place.name, command.type());
  inode.size = command.size();
  inode.attributes = attributes;
  if (command.has_inode()) {
    change_inode(context, inode, command.inode());
    inherit_group(place.directory, inode);
  }
  store_inode(context.database, inode);
  PS_CHECK(store_properties(context, inode.id, command.properties()));
  if (command.type() == proto::TYPE_SYMLINK) {
    context.database.run("INSERT INTO symlink(inode, target) VALUES(?, ?)", inode.id,
                         command.target());
  }
  if (command.open()) {
    grant_new_file(context, inode, *reply.mutable_lease());
    return success();
  }
  fill_file(context.database, inode, place.name, *reply.mutable_file());
  return success();
}

Applied apply_remove(Context& context, proto::Path_request const& command,
                     proto::Mds_reply& reply) {
  PS_TRY(auto const place, find_place(context.database, command.path()));
  if (!place.inode) {
    return failure(Errc::not_found, "no file or directory '" + command.path() + "'");
  }
  if (place.inode->id == root_inode) {
    return failure(Errc::refused, "the root directory cannot be removed");
  }
  if (command.only_directory() && !place.inode->is_directory()) {
    return failure(Errc::not_directory, "'" + command.path() + "' is not a directory");
  }
  if (command.only_file() && place.inode->is_directory()) {
    return failure(Errc::is_directory, "'" + command.path() + "' is a directory");
  }
  PS_CHECK(check_removable(context, *place.inode, command.path()));
  remove_dirent(context.database, place.directory.id, place.name);
  touch(context, place.directory.id);
  drop_link(context, *place.inode, *reply.mutable_file());
  return success();
}

Applied apply_rename(Context& context, proto::Rename const& command, proto::Mds_reply& reply) {
  PS_TRY(auto const from, find_place(context.database, command.from()));
  PS_TRY(auto const to, find_place(context.database, command.to()));
  if (!from.inode) {
    return failure(Errc::not_found, "no file or directory '" + command.from() + "'");
  }
  if (from.inode->id == root_inode || (to.inode && to.inode->id == root_inode)) {
    return failure(Errc::refused, "the root directory cannot be renamed or replaced");
  }
  if (to.inode && command.no_replace()) {
    return failure(Errc::exists, "'" + command.to() + "' exists already");
  }
  if (to.inode && to.inode->id == from.inode->id) return success();
  if (from.inode->is_directory() && is_above(context.database, from.inode->id, to.directory.id)) {
    return failure(Errc::refused, "cannot move '" + command.from() + "' into itself");
  }
  if (to.inode) {
    if (from.inode->is_directory() && !to.inode->is_directory()) {
      return failure(Errc::not_directory, "'" + command.to() + "' is not a directory");
    }
    if (!from.inode->is_directory() && to.inode->is_directory()) {
      return failure(Errc::is_directory, "'" + command.to() + "' is a directory");
    }
    PS_CHECK(check_removable(context, *to.inode, command.to()));
    remove_dirent(context.database, to.directory.id, to.name);
    drop_link(context, *to.inode, *reply.mutable_file());
  }
  remove_dirent(context.database, from.directory.id, from.name);
  add_dirent(context.database, to.directory.id, to.name, from.inode->id);
  touch(context, from.directory.id);
  touch(context, to.directory.id);
  return success();
}

Applied apply_link(Context& context, proto::Rename const& command, proto::Mds_reply& reply) {
  PS_TRY(auto inode, resolve(context.database, command.from()));
  if (inode.is_directory()) {
    return failure(Errc::is_directory,
                   "'" + command.from() + "' is a directory: only files can have several names");
  }
  PS_TRY(auto const to, find_place(context.database, command.to()));
  if (to.inode) return failure(Errc::exists, "'" + command.to() + "' exists already");
  if (inode.links == 0) return failure(Errc::not_found, "the file has been removed");
  if (command.not_leased()) {
    PS_CHECK(refuse_leased(context, inode.id, command.from(), "link"));
  }
  ++inode.links;
  inode.changed_ms = context.wall_ms;
  store_inode(context.database, inode);
  add_dirent(context.database, to.directory.id, to.name, inode.id);
  touch(context, to.directory.id);
  fill_file(context.database, inode, to.name, *reply.mutable_file());
  return success();
}

Applied apply_set_inode(Context& context, proto::Set_inode const& command,
                        proto::Mds_reply& reply) {
  PS_TRY(auto inode, resolve(context.database, command.path()));
  if (command.change().has_size()) {
    PS_CHECK(held_lease(context, inode.id.value, command.epoch()));
    if (command.change().size() > file_bytes_max) {
      return failure(Errc::too_large, "a file has at most 1P");
    }
  }
  change_inode(context, inode, command.change());
  store_inode(context.database, inode);
  fill_file(context.database, inode, {}, *reply.mutable_file());
  return success();
}

Applied apply_set_attributes(Context& context, proto::Set_attributes const& command,
                             proto::Mds_reply& reply) {
  PS_TRY(auto const place, find_place(context.database, command.path()));
  if (!place.inode) {
    return failure(Errc::not_found, "no file or directory '" + command.path() + "'");
  }
  auto inode = *place.inode;
  PS_CHECK(store_attributes(context, inode, command.path(), command.attributes(), true));
  PS_CHECK(store_properties(context, inode.id, command.properties()));
  if (command.recursive() && inode.is_directory()) {
    PS_CHECK(store_attributes_below(context, inode.id, command.attributes()));
  }
  fill_file(context.database, inode, place.name, *reply.mutable_file());
  return success();
}

namespace {

Outcome<Inode> resize_target(Context& context, proto::Resize const& command) {
  if (command.file() == 0) return resolve_file(context.database, command.path());
  auto inode = load_inode(context.database, File_id{command.file()});
  if (!inode || inode->is_directory()) {
    return failure(Errc::not_found, "no file with id " + std::to_string(command.file()));
  }
  return *std::move(inode);
}

}  // namespace

Applied apply_resize(Context& context, proto::Resize const& command, proto::Mds_reply& reply) {
  PS_TRY(auto inode, resize_target(context, command));
  if (command.size() > file_bytes_max) {
    return failure(Errc::too_large, "a file has at most 1P");
  }
  if (command.size() < inode.size) {
    if (!command.allow_shrink()) {
      return failure(Errc::refused, "'" + command.path() + "' has " + std::to_string(inode.size) +
                                        " bytes: shrinking it would destroy data");
    }
    PS_CHECK(refuse_leased(context, inode.id, command.path(), "shrink"));
    // What hosts have cached of the file is no longer true.
    if (readers_of(context.database, inode.id).empty())
      context.database.run("DELETE FROM reading WHERE file = ?", inode.id);
  }
  // Left there by a mount that died while the file grew.
  auto const lease = load_lease(context.database, inode.id);
  if (!lease || !lease->user()) remove_chunks_from(context, inode, inode.positions());
  inode.size = command.size();
  inode.modified_ms = context.wall_ms;
  remove_chunks_from(context, inode, inode.positions());
  store_inode(context.database, inode);
  fill_file(context.database, inode, {}, *reply.mutable_file());
  return success();
}

}  // namespace pstorage::mds
