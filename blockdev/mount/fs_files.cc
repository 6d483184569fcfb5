// File_system: open files.
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/uio.h>
#include <unistd.h>

#include "blockdev/mount/errno_of.h"
#include "blockdev/mount/file_system.h"

namespace pstorage::mount {
namespace {

bool writes_with(int flags) { return (flags & O_ACCMODE) != O_RDONLY; }

}  // namespace

File_system::Handle& File_system::handle_of(fuse_file_info const& info) {
  return *reinterpret_cast<Handle*>(info.fh);
}

fuse_file_info File_system::info_of(Open_file& file, bool writes, int flags) {
  fuse_file_info info = {};
  info.flags = flags;
  info.fh = reinterpret_cast<std::uint64_t>(new Handle{&file, writes, file.generation()});
  info.keep_cache = file.may_keep_cache();
  return info;
}

/// Open with `flags`; O_TRUNC is done here. Answers ESTALE when the kernel has another size in mind
/// than the file has under the lease: it asks again then.
void File_system::open_handle(fuse_ino_t inode, int flags,
                              std::function<void(int, fuse_file_info)> done) {
  auto& file = file_of({inode});
  bool const writes = writes_with(flags);
  file.open(writes, [this, inode, flags, writes, &file, done = std::move(done)](int why) {
    if (why != 0) return done(why, {});
    auto const finish = [this, inode, flags, writes, &file, done](int error) {
      if (error != 0) {
        file.close(writes);
        return done(error, {});
      }
      remember_size(inode, file.size());
      done(0, info_of(file, writes, flags));
    };
    if ((flags & O_TRUNC) != 0) return file.truncate(file.generation(), 0, finish);
    auto const told = told_sizes_.find(inode);
    bool const is_told = told != told_sizes_.end() && told->second == file.size();
    finish(is_told ? 0 : ESTALE);
  });
}

void File_system::open(fuse_req_t request, fuse_ino_t inode, fuse_file_info const& info) {
  open_handle(inode, info.flags, [request](int why, fuse_file_info opened) {
    if (why != 0)
      ::fuse_reply_err(request, why);
    else
      ::fuse_reply_open(request, &opened);
  });
}

void File_system::reply_created(fuse_req_t request, proto::File const& file,
                                fuse_file_info const& info) {
  auto const entry = entry_of(file);
  ::fuse_reply_create(request, &entry, &info);
}

void File_system::create(fuse_req_t request, fuse_ino_t parent, char const* name, mode_t mode,
                         fuse_file_info const& info) {
  if (int const why = check_name(name); why != 0) {
    ::fuse_reply_err(request, why);
    return;
  }
  auto const path = path_in(parent, name);
  proto::Mds_request command;
  auto& create = *command.mutable_create();
  create.set_path(path);
  create.set_open(true);
  create.mutable_inode()->set_mode(S_IFREG | (mode & 07777));
  create.mutable_inode()->set_uid(::fuse_req_ctx(request)->uid);
  create.mutable_inode()->set_gid(::fuse_req_ctx(request)->gid);
  ask(std::move(command), [this, request, path, info](Outcome<proto::Mds_reply> answer) {
    if (answer.has_error()) {
      bool const may_exist = (info.flags & O_EXCL) == 0;
      if (errc_of(answer.error().code) == Errc::exists && may_exist)
        return open_existing(request, path, info);
      ::fuse_reply_err(request, errno_of(answer.error().code));
      return;
    }
    auto const& lease = answer.value().lease();
    File_id const id{lease.file().id()};
    auto& place = files_[id];
    place = std::make_unique<Open_file>(environment_, cluster_.adopt_new_file(path, lease));
    auto& file = *place;
    bool const writes = writes_with(info.flags);
    file.open(writes, [this, request, &file, writes, made = lease.file(), info](int why) {
      if (why != 0)
        ::fuse_reply_err(request, why);
      else
        reply_created(request, made, info_of(file, writes, info.flags));
    });
  });
}

/// Somebody was quicker: then it is an ordinary open.
void File_system::open_existing(fuse_req_t request, std::string const& path,
                                fuse_file_info const& info) {
  proto::Mds_request query;
  query.mutable_lookup()->set_path(path);
  ask(std::move(query), [this, request, info](Outcome<proto::Mds_reply> answer) {
    if (answer.has_error() || answer.value().file().type() != proto::TYPE_FILE) {
      ::fuse_reply_err(request, answer.has_error() ? errno_of(answer.error().code) : EEXIST);
      return;
    }
    auto const file = answer.value().file();
    entry_of(file);
    open_handle(file.id(), info.flags, [this, request, file](int why, fuse_file_info opened) {
      if (why != 0)
        ::fuse_reply_err(request, why);
      else
        reply_created(request, file, opened);
    });
  });
}

void File_system::release(fuse_req_t request, fuse_file_info const& info) {
  auto* const handle = &handle_of(info);
  handle->file->close(handle->writes);
  delete handle;
  ::fuse_reply_err(request, 0);
}

void File_system::read(fuse_req_t request, std::size_t size, off_t offset,
                       fuse_file_info const& info) {
  auto const& handle = handle_of(info);
  handle.file->read(handle.generation, static_cast<std::uint64_t>(offset), size,
                    [request](int why, std::vector<Slice> data) {
                      if (why != 0) {
                        ::fuse_reply_err(request, why);
                        return;
                      }
                      std::vector<iovec> parts;
                      parts.reserve(data.size());
                      for (auto& part : data) parts.push_back({part.data(), part.size()});
                      ::fuse_reply_iov(request, parts.data(), static_cast<int>(parts.size()));
                    });
}

void File_system::write(fuse_req_t request, fuse_ino_t inode, char const* data, std::size_t size,
                        off_t offset, fuse_file_info const& info) {
  auto const& handle = handle_of(info);
  auto const* const bytes = reinterpret_cast<std::byte const*>(data);
  handle.file->write(handle.generation, static_cast<std::uint64_t>(offset),
                     Slice::copy_of({bytes, size}),
                     [this, request, inode, size, file = handle.file](int why) {
                       if (why != 0) {
                         ::fuse_reply_err(request, why);
                         return;
                       }
                       // The kernel moves the size it knows by itself.
                       remember_size(inode, file->size());
                       ::fuse_reply_write(request, size);
                     });
}

void File_system::sync(fuse_req_t request, fuse_file_info const& info) {
  auto const& handle = handle_of(info);
  handle.file->sync(handle.generation, [request](int why) { ::fuse_reply_err(request, why); });
}

void File_system::allocate(fuse_req_t request, int mode, off_t offset, off_t length,
                           fuse_file_info const& info) {
  auto const& handle = handle_of(info);
  auto const from = static_cast<std::uint64_t>(offset);
  auto const bytes = static_cast<std::uint64_t>(length);
  auto const done = [request](int why) { ::fuse_reply_err(request, why); };
  bool const keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  int const kind = mode & ~FALLOC_FL_KEEP_SIZE;
  if (kind == FALLOC_FL_PUNCH_HOLE || kind == FALLOC_FL_ZERO_RANGE)
    return handle.file->zero(handle.generation, from, bytes, keep_size, done);
  // Thin: nothing is reserved, so only the size can be made to last.
  if (kind != 0 || keep_size) return done(EOPNOTSUPP);
  auto const end = from + bytes;
  if (end <= handle.file->size()) return done(0);
  handle.file->truncate(handle.generation, end, done);
}

void File_system::seek(fuse_req_t request, off_t offset, int whence, fuse_file_info const& info) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) {
    ::fuse_reply_err(request, EINVAL);
    return;
  }
  auto const& handle = handle_of(info);
  handle.file->seek(handle.generation, static_cast<std::uint64_t>(offset), whence == SEEK_HOLE,
                    [request](int why, std::uint64_t found) {
                      if (why != 0)
                        ::fuse_reply_err(request, why);
                      else
                        ::fuse_reply_lseek(request, static_cast<off_t>(found));
                    });
}

}  // namespace pstorage::mount
