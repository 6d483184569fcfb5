#include "mds/state/inodes.h"

#include <algorithm>
#include <charconv>

namespace pstorage::mds {
namespace {

constexpr int path_depth_max = 1024;
// Bits of the column ssd_cache.
constexpr std::uint64_t flag_ssd_cache = 1;
constexpr std::uint64_t flag_waits_when_full = 2;

/// Splits "@17/name" into the inode and an absolute path below it. Errors: bad_request.
Outcome<File_id> cut_start(std::string& path) {
  if (path.empty() || path.front() != '@') return root_inode;
  auto const end = std::min(path.find('/'), path.size());
  File_id start;
  auto const [at, error] = std::from_chars(path.data() + 1, path.data() + end, start.value);
  if (error != std::errc() || at != path.data() + end) {
    return failure(Errc::bad_request, "path '" + path + "' names no inode");
  }
  path.erase(0, end);
  if (path.empty()) path = "/";
  return start;
}

}  // namespace

std::optional<Inode> load_inode(Database& database, File_id id) {
  Rows rows(database,
            "SELECT type, size, links, norm, min, domain, tier, chunk_size, ssd_cache,"
            " modified_ms, chunks, mode, uid, gid, modified_sub_ns, changed_ms FROM inode"
            " WHERE id = ?");
  rows.bind(1, id);
  if (!rows.next()) return std::nullopt;
  Inode inode;
  inode.id = id;
  inode.type = static_cast<proto::File_type>(rows.u64(0));
  inode.size = rows.u64(1);
  inode.links = rows.u32(2);
  inode.attributes.norm = rows.u32(3);
  inode.attributes.min = rows.u32(4);
  inode.attributes.domain = static_cast<Failure_domain>(rows.u64(5));
  inode.attributes.tier = rows.u32(6);
  inode.attributes.chunk_size = rows.u32(7);
  inode.attributes.client_ssd_cache = (rows.u64(8) & flag_ssd_cache) != 0;
  inode.attributes.waits_when_full = (rows.u64(8) & flag_waits_when_full) != 0;
  inode.modified_ms = rows.u64(9);
  inode.chunks = rows.u64(10);
  inode.mode = rows.u32(11);
  inode.uid = rows.u32(12);
  inode.gid = rows.u32(13);
  inode.modified_sub_ns = rows.u32(14);
  inode.changed_ms = rows.u64(15);
  return inode;
}

void store_inode(Database& database, Inode const& inode) {
  auto const& attributes = inode.attributes;
  std::uint64_t const flags = (attributes.client_ssd_cache ? flag_ssd_cache : 0) |
                              (attributes.waits_when_full ? flag_waits_when_full : 0);
  database.run(
      "INSERT OR REPLACE INTO inode(id, type, size, links, norm, min, domain, tier, chunk_size,"
      " ssd_cache, modified_ms, chunks, mode, uid, gid, modified_sub_ns, changed_ms)"
      " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
      inode.id, static_cast<int>(inode.type), inode.size, inode.links, attributes.norm,
      attributes.min, static_cast<int>(attributes.domain), attributes.tier, attributes.chunk_size,
      flags, inode.modified_ms, inode.chunks, inode.mode, inode.uid, inode.gid,
      inode.modified_sub_ns, inode.changed_ms);
}

Outcome<Tree_place> find_place(Database& database, std::string const& path) {
  auto below = path;
  PS_TRY(auto const start, cut_start(below));
  PS_TRY(auto const names, split_path(below));
  Tree_place place;
  place.inode = load_inode(database, start);
  std::string walked = start == root_inode ? "" : "@" + std::to_string(start.value);
  for (auto const& name : names) {
    if (!place.inode) {
      return failure(Errc::not_found,
                     "no file or directory '" + path + "': there is no directory '" + walked + "'");
    }
    if (!place.inode->is_directory()) {
      return failure(Errc::not_directory, "'" + walked + "' is not a directory");
    }
    place.directory = std::move(*place.inode);
    place.name = name;
    walked += "/" + name;
    auto const id = database.number("SELECT inode FROM dirent WHERE parent = ? AND name = ?", 0,
                                    place.directory.id, name);
    place.inode = id == 0 ? std::nullopt : load_inode(database, File_id{id});
  }
  return place;
}

Outcome<Inode> resolve(Database& database, std::string const& path) {
  PS_TRY(auto place, find_place(database, path));
  if (!place.inode) return failure(Errc::not_found, "no file or directory '" + path + "'");
  return *std::move(place.inode);
}

Outcome<Inode> resolve_file(Database& database, std::string const& path) {
  PS_TRY(auto inode, resolve(database, path));
  if (inode.is_directory()) {
    return failure(Errc::is_directory, "'" + path + "' is a directory, not a file");
  }
  return inode;
}

void add_dirent(Database& database, File_id parent, std::string const& name, File_id inode) {
  database.run("INSERT OR REPLACE INTO dirent(parent, name, inode) VALUES(?, ?, ?)", parent, name,
               inode);
}

void remove_dirent(Database& database, File_id parent, std::string const& name) {
  database.run("DELETE FROM dirent WHERE parent = ? AND name = ?", parent, name);
}

bool has_entries(Database& database, File_id directory) {
  return database.number("SELECT 1 FROM dirent WHERE parent = ? LIMIT 1", 0, directory) != 0;
}

bool is_above(Database& database, File_id inode, File_id directory) {
  for (int depth = 0; depth < path_depth_max; ++depth) {
    if (directory == inode) return true;
    if (directory == root_inode) return false;
    directory =
        File_id{database.number("SELECT parent FROM dirent WHERE inode = ? LIMIT 1", 0, directory)};
    if (directory == File_id{}) return false;
  }
  return true;  // deeper than any path: refused rather than made into a ring
}

std::string path_of(Database& database, File_id id) {
  std::string path;
  auto at = id;
  for (int depth = 0; depth < path_depth_max && at != root_inode; ++depth) {
    Rows rows(database, "SELECT parent, name FROM dirent WHERE inode = ? LIMIT 1");
    rows.bind(1, at);
    if (!rows.next()) return "file " + std::to_string(id.value);
    path.insert(0, "/" + rows.text(1));
    at = File_id{rows.u64(0)};
  }
  return path.empty() ? "/" : path;
}

void fill_file(Database& database, Inode const& inode, std::string const& name, proto::File& out) {
  out.set_id(inode.id.value);
  out.set_type(inode.type);
  out.set_size(inode.size);
  out.set_links(inode.links);
  *out.mutable_attributes() = to_proto(inode.attributes);
  out.set_modified_ms(inode.modified_ms);
  out.set_name(name);
  out.set_allocated_chunks(inode.chunks);
  out.set_mode(inode.mode);
  out.set_uid(inode.uid);
  out.set_gid(inode.gid);
  out.set_modified_sub_ns(inode.modified_sub_ns);
  out.set_changed_ms(inode.changed_ms);
  if (inode.type == proto::TYPE_SYMLINK) {
    Rows target(database, "SELECT target FROM symlink WHERE inode = ?");
    target.bind(1, inode.id);
    if (target.next()) out.set_target(target.text(0));
  }
  Rows rows(database, "SELECT name, value FROM property WHERE inode = ? ORDER BY name");
  rows.bind(1, inode.id);
  while (rows.next()) (*out.mutable_properties())[rows.text(0)] = rows.text(1);
}

}  // namespace pstorage::mds
