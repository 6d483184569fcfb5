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

Inode make_inode(Context& context, Inode const& directory, std::string const& name,
                 proto::File_type type) {
  Inode inode;
  inode.id = File_id{next_counter(context.database, "inode")};
  inode.type = type;
  inode.attributes = directory.attributes;
  inode.modified_ms = context.wall_ms;
  store_inode(context.database, inode);
  add_dirent(context.database, directory.id, name, inode.id);
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

/// One name less; with the last one the file itself goes.
void drop_link(Context& context, Inode inode) {
  if (inode.is_directory() || inode.links <= 1) {
    remove_chunks_from(context, inode, 0);
    context.database.run("DELETE FROM inode WHERE id = ?", inode.id);
    context.database.run("DELETE FROM property WHERE inode = ?", inode.id);
    context.database.run("DELETE FROM reading WHERE file = ?", inode.id);
    if (load_lease(context.database, inode.id)) remove_lease(context, inode.id);
    return;
  }
  --inode.links;
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

bool is_inside(std::string const& path, std::string const& directory) {
  auto const inner = split_path(path);
  auto const outer = split_path(directory);
  if (!inner.has_value() || !outer.has_value()) return false;
  auto const& in = inner.value();
  auto const& out = outer.value();
  return in.size() > out.size() && std::equal(out.begin(), out.end(), in.begin());
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
  store_inode(context.database, inode);
  PS_CHECK(store_properties(context, inode.id, command.properties()));
  fill_file(context.database, inode, place.name, *reply.mutable_file());
  return success();
}

Applied apply_remove(Context& context, proto::Path_request const& command) {
  PS_TRY(auto const place, find_place(context.database, command.path()));
  if (!place.inode) {
    return failure(Errc::not_found, "no file or directory '" + command.path() + "'");
  }
  if (place.inode->id == root_inode) {
    return failure(Errc::refused, "the root directory cannot be removed");
  }
  PS_CHECK(check_removable(context, *place.inode, command.path()));
  remove_dirent(context.database, place.directory.id, place.name);
  drop_link(context, *place.inode);
  return success();
}

Applied apply_rename(Context& context, proto::Rename const& command) {
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
  if (from.inode->is_directory() && is_inside(command.to(), command.from())) {
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
    drop_link(context, *to.inode);
  }
  remove_dirent(context.database, from.directory.id, from.name);
  add_dirent(context.database, to.directory.id, to.name, from.inode->id);
  return success();
}

Applied apply_link(Context& context, proto::Rename const& command) {
  PS_TRY(auto inode, resolve(context.database, command.from()));
  if (inode.is_directory()) {
    return failure(Errc::is_directory,
                   "'" + command.from() + "' is a directory: only files can have several names");
  }
  PS_TRY(auto const to, find_place(context.database, command.to()));
  if (to.inode) return failure(Errc::exists, "'" + command.to() + "' exists already");
  if (command.not_leased()) {
    PS_CHECK(refuse_leased(context, inode.id, command.from(), "link"));
  }
  ++inode.links;
  store_inode(context.database, inode);
  add_dirent(context.database, to.directory.id, to.name, inode.id);
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
  }
  inode.size = command.size();
  inode.modified_ms = context.wall_ms;
  remove_chunks_from(context, inode, inode.positions());
  store_inode(context.database, inode);
  fill_file(context.database, inode, {}, *reply.mutable_file());
  return success();
}

}  // namespace pstorage::mds
