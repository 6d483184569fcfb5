// File_system: libfuse's table of functions.
#include <errno.h>
#include <sys/stat.h>

#include "blockdev/mount/file_system.h"

namespace pstorage::mount {
namespace {

constexpr unsigned write_bytes_max = 1u << 20;

File_system& self(fuse_req_t request) {
  return *static_cast<File_system*>(::fuse_req_userdata(request));
}

/// Nothing is made or removed below .disks, nor called like it; true: it has been answered.
bool refuse_in_view(fuse_req_t request, fuse_ino_t inode, char const* name) {
  bool const is_refused =
      is_view(inode) || (inode == FUSE_ROOT_ID && std::string_view(name) == view_name);
  if (is_refused) ::fuse_reply_err(request, EPERM);
  return is_refused;
}

void on_init(void*, fuse_conn_info* connection) {
  connection->max_write = write_bytes_max;
  connection->max_readahead = write_bytes_max;
  // Reads of /dev/fuse must not block; a splice through a pipe costs more than the copy here.
  connection->want &=
      ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
  connection->want |= connection->capable & FUSE_CAP_ATOMIC_O_TRUNC;
  // Every inode of an ended lease is told to the kernel (on_lost); it need not guess by times.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_AUTO_INVAL_DATA);
}

void add_names(fuse_lowlevel_ops& table) {
  table.lookup = [](fuse_req_t request, fuse_ino_t parent, char const* name) {
    if (is_view(parent)) return self(request).disks().lookup(request, parent, name);
    if (parent == FUSE_ROOT_ID && std::string_view(name) == view_name)
      return self(request).disks().look_up_root(request);
    self(request).lookup(request, parent, name);
  };
  table.mkdir = [](fuse_req_t request, fuse_ino_t parent, char const* name, mode_t mode) {
    if (refuse_in_view(request, parent, name)) return;
    self(request).make(request, parent, name, proto::TYPE_DIRECTORY, mode, nullptr);
  };
  table.mknod = [](fuse_req_t request, fuse_ino_t parent, char const* name, mode_t mode, dev_t) {
    if (refuse_in_view(request, parent, name)) return;
    if (!S_ISREG(mode)) {
      ::fuse_reply_err(request, EOPNOTSUPP);  // devices, pipes, sockets
      return;
    }
    self(request).make(request, parent, name, proto::TYPE_FILE, mode, nullptr);
  };
  table.symlink = [](fuse_req_t request, char const* target, fuse_ino_t parent, char const* name) {
    if (refuse_in_view(request, parent, name)) return;
    self(request).make(request, parent, name, proto::TYPE_SYMLINK, 0777, target);
  };
  table.unlink = [](fuse_req_t request, fuse_ino_t parent, char const* name) {
    if (refuse_in_view(request, parent, name)) return;
    self(request).remove(request, parent, name, false);
  };
  table.rmdir = [](fuse_req_t request, fuse_ino_t parent, char const* name) {
    if (refuse_in_view(request, parent, name)) return;
    self(request).remove(request, parent, name, true);
  };
  table.rename = [](fuse_req_t request, fuse_ino_t from, char const* name, fuse_ino_t to,
                    char const* new_name, unsigned flags) {
    if (refuse_in_view(request, from, name) || refuse_in_view(request, to, new_name)) return;
    self(request).rename(request, from, name, to, new_name, flags);
  };
  table.link = [](fuse_req_t request, fuse_ino_t inode, fuse_ino_t parent, char const* name) {
    if (refuse_in_view(request, parent, name) || refuse_in_view(request, inode, name)) return;
    self(request).link(request, inode, parent, name);
  };
  table.readlink = [](fuse_req_t request, fuse_ino_t inode) {
    self(request).read_link(request, inode);
  };
}

void add_attributes(fuse_lowlevel_ops& table) {
  table.getattr = [](fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
    if (is_view(inode)) return self(request).disks().get_attributes(request, inode);
    self(request).get_attributes(request, inode);
  };
  table.setattr = [](fuse_req_t request, fuse_ino_t inode, struct stat* wanted, int which,
                     fuse_file_info* info) {
    if (is_view(inode)) {
      // Its owner and mode are those of the mount, its size is changed with 'pstorage volume
      // resize'.
      if ((which &
           (FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0)
        ::fuse_reply_err(request, EPERM);
      else
        self(request).disks().get_attributes(request, inode);
      return;
    }
    self(request).set_attributes(request, inode, *wanted, which, info);
  };
  table.getxattr = [](fuse_req_t request, fuse_ino_t inode, char const* name, std::size_t size) {
    if (is_view(inode)) {
      ::fuse_reply_err(request, ENODATA);
      return;
    }
    self(request).get_xattr(request, inode, name, size);
  };
  table.listxattr = [](fuse_req_t request, fuse_ino_t inode, std::size_t size) {
    if (is_view(inode)) {
      ::fuse_reply_xattr(request, 0);
      return;
    }
    self(request).get_xattr(request, inode, nullptr, size);
  };
  table.setxattr = [](fuse_req_t request, fuse_ino_t inode, char const* name, char const* value,
                      std::size_t size, int flags) {
    if (is_view(inode)) {
      ::fuse_reply_err(request, EOPNOTSUPP);
      return;
    }
    self(request).set_xattr(request, inode, name, value, size, flags);
  };
  table.removexattr = [](fuse_req_t request, fuse_ino_t, char const* name) {
    bool const is_own = std::string_view(name).starts_with(attribute_prefix);
    ::fuse_reply_err(request, is_own ? EPERM : ENODATA);
  };
  table.statfs = [](fuse_req_t request, fuse_ino_t) { self(request).space(request); };
}

void add_files(fuse_lowlevel_ops& table) {
  table.create = [](fuse_req_t request, fuse_ino_t parent, char const* name, mode_t mode,
                    fuse_file_info* info) {
    if (refuse_in_view(request, parent, name)) return;
    self(request).create(request, parent, name, mode, *info);
  };
  table.open = [](fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
    if (is_view(inode)) return self(request).disks().open(request, inode, *info);
    self(request).open(request, inode, *info);
  };
  table.release = [](fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
    if (is_view(inode)) return self(request).disks().release(request, *info);
    self(request).release(request, *info);
  };
  table.read = [](fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t offset,
                  fuse_file_info* info) {
    if (is_view(inode)) return self(request).disks().read(request, size, offset, *info);
    self(request).read(request, size, offset, *info);
  };
  table.write = [](fuse_req_t request, fuse_ino_t inode, char const* data, std::size_t size,
                   off_t offset, fuse_file_info* info) {
    if (is_view(inode)) return self(request).disks().write(request, data, size, offset, *info);
    self(request).write(request, inode, data, size, offset, *info);
  };
  // Every write was answered by the replicas before it was answered to the kernel.
  table.flush = [](fuse_req_t request, fuse_ino_t, fuse_file_info*) {
    ::fuse_reply_err(request, 0);
  };
  table.fsync = [](fuse_req_t request, fuse_ino_t inode, int, fuse_file_info* info) {
    if (is_view(inode)) return self(request).disks().sync(request, *info);
    self(request).sync(request, *info);
  };
  table.fallocate = [](fuse_req_t request, fuse_ino_t inode, int mode, off_t offset, off_t length,
                       fuse_file_info* info) {
    if (is_view(inode)) return self(request).disks().allocate(request, mode, offset, length, *info);
    self(request).allocate(request, mode, offset, length, *info);
  };
  table.lseek = [](fuse_req_t request, fuse_ino_t, off_t offset, int whence, fuse_file_info* info) {
    self(request).seek(request, offset, whence, *info);
  };
}

void add_directories(fuse_lowlevel_ops& table) {
  table.opendir = [](fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
    if (is_view(inode)) return self(request).disks().open_directory(request, inode, *info);
    self(request).open_directory(request, inode, *info);
  };
  table.readdir = [](fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t offset,
                     fuse_file_info* info) {
    if (is_view(inode))
      return self(request).disks().read_directory(request, size, offset, *info, false);
    self(request).read_directory(request, size, offset, *info, false);
  };
  table.readdirplus = [](fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t offset,
                         fuse_file_info* info) {
    if (is_view(inode))
      return self(request).disks().read_directory(request, size, offset, *info, true);
    self(request).read_directory(request, size, offset, *info, true);
  };
  table.releasedir = [](fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
    if (is_view(inode)) return self(request).disks().release_directory(request, *info);
    self(request).release_directory(request, *info);
  };
  // What changes names is durable on a majority of the metadata servers when it is answered.
  table.fsyncdir = [](fuse_req_t request, fuse_ino_t, int, fuse_file_info*) {
    ::fuse_reply_err(request, 0);
  };
}

}  // namespace

fuse_lowlevel_ops File_system::operations() {
  fuse_lowlevel_ops table = {};
  table.init = on_init;
  add_names(table);
  add_attributes(table);
  add_files(table);
  add_directories(table);
  return table;
}

}  // namespace pstorage::mount
