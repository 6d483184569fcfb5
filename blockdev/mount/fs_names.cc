// File_system: names.
#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>

#include "blockdev/mount/errno_of.h"
#include "blockdev/mount/file_system.h"

namespace pstorage::mount {
namespace {

/// Refuses a bad name at once; true: it has been answered.
bool refuse_name(fuse_req_t request, char const* name) {
  int const why = check_name(name);
  if (why != 0) ::fuse_reply_err(request, why);
  return why != 0;
}

int error_of(Failure const& why) { return errno_of(why.code); }

}  // namespace

void File_system::lookup(fuse_req_t request, fuse_ino_t parent, char const* name) {
  if (int const why = check_name(name); why != 0) {
    // There cannot be one.
    ::fuse_reply_err(request, why == ENAMETOOLONG ? why : ENOENT);
    return;
  }
  proto::Mds_request query;
  query.mutable_lookup()->set_path(path_in(parent, name));
  ask(std::move(query), [this, request](Outcome<proto::Mds_reply> answer) {
    if (answer.has_error())
      ::fuse_reply_err(request, error_of(answer.error()));
    else
      reply_entry(request, answer.value().file());
  });
}

void File_system::make(fuse_req_t request, fuse_ino_t parent, char const* name,
                       proto::File_type type, mode_t mode, char const* target) {
  if (refuse_name(request, name)) return;
  proto::Mds_request command;
  auto& create = *command.mutable_create();
  create.set_path(path_in(parent, name));
  create.set_type(type);
  create.mutable_inode()->set_mode(type_bits(type) | (mode & 07777));
  create.mutable_inode()->set_uid(::fuse_req_ctx(request)->uid);
  create.mutable_inode()->set_gid(::fuse_req_ctx(request)->gid);
  if (target != nullptr) {
    if (!is_utf8(target)) {
      ::fuse_reply_err(request, EILSEQ);
      return;
    }
    create.set_target(target);
  }
  ask(std::move(command), [this, request](Outcome<proto::Mds_reply> answer) {
    if (answer.has_error())
      ::fuse_reply_err(request, error_of(answer.error()));
    else
      reply_entry(request, answer.value().file());
  });
}

void File_system::remove(fuse_req_t request, fuse_ino_t parent, char const* name, bool directory) {
  if (refuse_name(request, name)) return;
  proto::Mds_request command;
  auto& remove = *command.mutable_remove();
  remove.set_path(path_in(parent, name));
  remove.set_only_directory(directory);
  remove.set_only_file(!directory);
  ask(std::move(command), [this, request](Outcome<proto::Mds_reply> answer) {
    if (answer.has_value()) file_was_removed(answer.value().file());
    ::fuse_reply_err(request, answer.has_error() ? error_of(answer.error()) : 0);
  });
}

void File_system::rename(fuse_req_t request, fuse_ino_t from, char const* name, fuse_ino_t to,
                         char const* new_name, unsigned flags) {
  if (refuse_name(request, name) || refuse_name(request, new_name)) return;
  if ((flags & ~static_cast<unsigned>(RENAME_NOREPLACE)) != 0) {
    ::fuse_reply_err(request, EINVAL);  // RENAME_EXCHANGE, RENAME_WHITEOUT
    return;
  }
  proto::Mds_request command;
  auto& rename = *command.mutable_rename();
  rename.set_from(path_in(from, name));
  rename.set_to(path_in(to, new_name));
  rename.set_no_replace((flags & RENAME_NOREPLACE) != 0);
  ask(std::move(command), [this, request](Outcome<proto::Mds_reply> answer) {
    if (answer.has_value()) file_was_removed(answer.value().file());
    ::fuse_reply_err(request, answer.has_error() ? error_of(answer.error()) : 0);
  });
}

void File_system::link(fuse_req_t request, fuse_ino_t inode, fuse_ino_t parent, char const* name) {
  if (refuse_name(request, name)) return;
  proto::Mds_request command;
  command.mutable_link()->set_from(path_of(inode));
  command.mutable_link()->set_to(path_in(parent, name));
  ask(std::move(command), [this, request](Outcome<proto::Mds_reply> answer) {
    if (answer.has_error())
      ::fuse_reply_err(request, error_of(answer.error()));
    else
      reply_entry(request, answer.value().file());
  });
}

void File_system::read_link(fuse_req_t request, fuse_ino_t inode) {
  look_at(inode, [request](int why, proto::File const& file) {
    if (why == 0 && file.type() != proto::TYPE_SYMLINK) why = EINVAL;
    if (why != 0)
      ::fuse_reply_err(request, why);
    else
      ::fuse_reply_readlink(request, file.target().c_str());
  });
}

}  // namespace pstorage::mount
