// File_system: directories, read in pages by name.
#include <errno.h>

#include "blockdev/mount/errno_of.h"
#include "blockdev/mount/file_system.h"

namespace pstorage::mount {
namespace {

constexpr std::uint32_t page_entries = 1000;

}  // namespace

/// An open directory: what has been read of it so far. The offset behind entry i is i + 1.
struct File_system::Directory {
  fuse_ino_t inode = 0;
  std::vector<proto::File> entries;  // "." and ".." first
  bool is_complete = false;
};

void File_system::open_directory(fuse_req_t request, fuse_ino_t inode, fuse_file_info info) {
  auto* const directory = new Directory;
  directory->inode = inode;
  info.fh = reinterpret_cast<std::uint64_t>(directory);
  ::fuse_reply_open(request, &info);
}

void File_system::release_directory(fuse_req_t request, fuse_file_info const& info) {
  delete reinterpret_cast<Directory*>(info.fh);
  ::fuse_reply_err(request, 0);
}

void File_system::read_directory(fuse_req_t request, std::size_t size, off_t offset,
                                 fuse_file_info const& info, bool plus) {
  auto& directory = *reinterpret_cast<Directory*>(info.fh);
  if (offset == 0) {  // opened or rewound
    directory.entries.clear();
    directory.is_complete = false;
    for (auto const* const name : {".", ".."}) {
      proto::File entry;
      entry.set_name(name);
      entry.set_id(directory.inode);
      entry.set_type(proto::TYPE_DIRECTORY);
      directory.entries.push_back(std::move(entry));
    }
  }
  auto const from = static_cast<std::size_t>(offset);
  if (directory.is_complete || from < directory.entries.size())
    return reply_page(request, size, offset, directory, plus);
  fetch_page(request, size, offset, directory, plus);
}

void File_system::fetch_page(fuse_req_t request, std::size_t size, off_t offset,
                             Directory& directory, bool plus) {
  proto::Mds_request query;
  auto& list = *query.mutable_list_directory();
  list.set_path(path_of(directory.inode));
  list.set_limit(page_entries);
  if (directory.entries.size() > 2) list.set_after(directory.entries.back().name());
  // The kernel sends one request a directory at a time, and no release before its answer.
  ask(std::move(query),
      [this, request, size, offset, plus, &directory](Outcome<proto::Mds_reply> answer) {
        if (answer.has_error()) {
          ::fuse_reply_err(request, errno_of(answer.error().code));
          return;
        }
        auto const& page = answer.value().files();
        directory.is_complete = !page.more();
        directory.entries.insert(directory.entries.end(), page.files().begin(), page.files().end());
        reply_page(request, size, offset, directory, plus);
      });
}

void File_system::reply_page(fuse_req_t request, std::size_t size, off_t offset,
                             Directory& directory, bool plus) {
  std::vector<char> buffer(size);
  std::size_t used = 0;
  for (auto at = static_cast<std::size_t>(offset); at < directory.entries.size(); ++at) {
    auto const& file = directory.entries[at];
    auto const next = static_cast<off_t>(at) + 1;
    char* const place = buffer.data() + used;
    std::size_t bytes = 0;
    if (plus && at >= 2) {
      auto const entry = entry_of(file);
      bytes =
          ::fuse_add_direntry_plus(request, place, size - used, file.name().c_str(), &entry, next);
    } else if (plus) {
      fuse_entry_param entry = {};  // inode 0: the kernel does not look it up
      entry.attr.st_ino = file.id();
      entry.attr.st_mode = S_IFDIR;
      bytes =
          ::fuse_add_direntry_plus(request, place, size - used, file.name().c_str(), &entry, next);
    } else {
      struct stat shown = {};
      shown.st_ino = file.id();
      shown.st_mode = type_bits(file.type());
      bytes = ::fuse_add_direntry(request, place, size - used, file.name().c_str(), &shown, next);
    }
    if (bytes > size - used) break;
    used += bytes;
  }
  ::fuse_reply_buf(request, buffer.data(), used);
}

}  // namespace pstorage::mount
