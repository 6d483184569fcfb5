// Rows of the name space: inodes, directory entries, properties.
#pragma once

#include <optional>
#include <string>

#include "core/ids.h"
#include "mds/state/attributes.h"
#include "mds/state/context.h"

namespace pstorage::mds {

inline constexpr File_id root_inode{1};

struct Inode {
  File_id id;
  proto::File_type type = proto::TYPE_FILE;
  std::uint64_t size = 0;
  std::uint32_t links = 1;
  Attribute_set attributes;
  std::uint64_t modified_ms = 0;
  std::uint64_t chunks = 0;  // mapped ones
  std::uint32_t mode = 0;    // st_mode; 0: none of its own
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t modified_sub_ns = 0;  // behind modified_ms
  std::uint64_t changed_ms = 0;       // 0: as modified_ms

  bool is_directory() const { return type == proto::TYPE_DIRECTORY; }
  /// Positions a map of this size can have.
  std::uint64_t positions() const {
    return (size + attributes.chunk_size - 1) / attributes.chunk_size;
  }
};

std::optional<Inode> load_inode(Database& database, File_id id);
void store_inode(Database& database, Inode const& inode);

/// Where a path points: the directory, the last name and what stands there. For "/": no name.
struct Tree_place {
  Inode directory;
  std::string name;
  std::optional<Inode> inode;
};

/// `path` is absolute or begins at an inode ("@17/name").
/// Errors: bad_request, not_found (a directory on the way), not_directory.
Outcome<Tree_place> find_place(Database& database, std::string const& path);
/// Errors: as find_place, not_found.
Outcome<Inode> resolve(Database& database, std::string const& path);
/// As resolve; is_directory when it is one.
Outcome<Inode> resolve_file(Database& database, std::string const& path);

void add_dirent(Database& database, File_id parent, std::string const& name, File_id inode);
void remove_dirent(Database& database, File_id parent, std::string const& name);
bool has_entries(Database& database, File_id directory);
/// Is `inode` the directory `directory` or one above it?
bool is_above(Database& database, File_id inode, File_id directory);

/// One path of the inode, for people; "file 17" when it has none.
std::string path_of(Database& database, File_id id);

/// Everything a client sees of it.
void fill_file(Database& database, Inode const& inode, std::string const& name, proto::File& out);

}  // namespace pstorage::mds
