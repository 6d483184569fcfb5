// File_system: attributes, extended attributes, free space.
#include <errno.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <time.h>

#include "blockdev/mount/errno_of.h"
#include "blockdev/mount/file_system.h"

namespace pstorage::mount {
namespace {

constexpr std::uint32_t fragment = 4096;
// A loop device discards in units of this: what an image gives back at the least.
constexpr std::uint32_t transfer = 1u << 20;
constexpr Duration space_age_max = std::chrono::seconds(1);
constexpr std::uint64_t inodes_shown = 1ull << 40;  // there is no limit but the MDS's disk
constexpr long ns_a_ms = 1'000'000;

void set_modified(proto::Inode_change& change, timespec const& time) {
  change.set_modified_ms(static_cast<std::uint64_t>(time.tv_sec) * 1000 +
                         static_cast<std::uint64_t>(time.tv_nsec / ns_a_ms));
  change.set_modified_sub_ns(static_cast<std::uint32_t>(time.tv_nsec % ns_a_ms));
}

/// The part of `name` behind "user.pstorage."; empty: another attribute.
std::string_view own_name(std::string_view name) {
  if (!name.starts_with(attribute_prefix)) return {};
  return name.substr(attribute_prefix.size());
}

void reply_text(fuse_req_t request, std::string const& text, std::size_t size) {
  if (size == 0)
    ::fuse_reply_xattr(request, text.size());
  else if (size < text.size())
    ::fuse_reply_err(request, ERANGE);
  else
    ::fuse_reply_buf(request, text.data(), text.size());
}

}  // namespace

void File_system::get_attributes(fuse_req_t request, fuse_ino_t inode) {
  look_at(inode, [this, request](int why, proto::File file) {
    if (why != 0)
      ::fuse_reply_err(request, why);
    else
      reply_attributes(request, std::move(file));
  });
}

void File_system::set_attributes(fuse_req_t request, fuse_ino_t inode, struct stat const& wanted,
                                 int which, fuse_file_info* info) {
  proto::Inode_change change;
  if ((which & FUSE_SET_ATTR_MODE) != 0) change.set_mode(wanted.st_mode);
  if ((which & FUSE_SET_ATTR_UID) != 0) change.set_uid(wanted.st_uid);
  if ((which & FUSE_SET_ATTR_GID) != 0) change.set_gid(wanted.st_gid);
  timespec time = wanted.st_mtim;
  bool const is_now = (which & FUSE_SET_ATTR_MTIME_NOW) != 0;
  if (is_now) ::clock_gettime(CLOCK_REALTIME, &time);
  bool const sets_time = is_now || (which & FUSE_SET_ATTR_MTIME) != 0;
  auto rest = [this, request, inode, change, time, sets_time](int why) mutable {
    if (why != 0) {
      ::fuse_reply_err(request, why);
      return;
    }
    // Under an exclusive lease the time goes to the MDS with the size.
    auto* const open = find({inode});
    bool const is_kept = sets_time && open != nullptr && open->set_modified(time);
    if (is_kept && change.ByteSizeLong() == 0) return reply_attributes(request, open->known());
    if (sets_time && !is_kept) set_modified(change, time);
    set_owner(request, inode, std::move(change));
  };
  if ((which & FUSE_SET_ATTR_SIZE) == 0) return rest(0);
  truncate(inode, static_cast<std::uint64_t>(wanted.st_size), info, rest);
}

void File_system::truncate(fuse_ino_t inode, std::uint64_t size, fuse_file_info const* info,
                           Errno_done done) {
  if (info != nullptr && info->fh != 0) {
    auto const& handle = handle_of(*info);
    return handle.file->truncate(handle.generation, size, std::move(done));
  }
  auto& file = file_of({inode});
  file.open(true, [this, &file, size, done = std::move(done)](int why) {
    if (why != 0) return done(why);
    file.truncate(file.generation(), size, [&file, done](int error) {
      // Told before anybody else can see the file: who truncates by name expects it to last.
      file.sync(file.generation(), [&file, done, error](int synced) {
        file.close(true);
        done(error != 0 ? error : synced);
      });
    });
  });
}

/// An inode without an owner of its own gets all of it at once.
void File_system::set_owner(fuse_req_t request, fuse_ino_t inode, proto::Inode_change change) {
  bool const is_partial = (change.has_uid() || change.has_gid()) && !change.has_mode();
  if (!is_partial && !(change.has_mode() && !(change.has_uid() && change.has_gid())))
    return change_inode(request, inode, std::move(change));
  look_at(inode,
          [this, request, inode, change = std::move(change)](int why, proto::File file) mutable {
            if (why != 0) {
              ::fuse_reply_err(request, why);
              return;
            }
            if (file.mode() == 0) {
              auto const shown = stat_of(file, options_.defaults);
              if (!change.has_mode()) change.set_mode(shown.st_mode);
              if (!change.has_uid()) change.set_uid(shown.st_uid);
              if (!change.has_gid()) change.set_gid(shown.st_gid);
            }
            change_inode(request, inode, std::move(change));
          });
}

void File_system::change_inode(fuse_req_t request, fuse_ino_t inode, proto::Inode_change change) {
  if (change.ByteSizeLong() == 0) return get_attributes(request, inode);
  proto::Mds_request command;
  command.mutable_set_inode()->set_path(path_of(inode));
  *command.mutable_set_inode()->mutable_change() = std::move(change);
  ask(std::move(command), [this, request](Outcome<proto::Mds_reply> answer) {
    if (answer.has_error()) {
      int const why = errno_of(answer.error().code);
      ::fuse_reply_err(request, why == ENOENT ? ESTALE : why);
      return;
    }
    if (auto* const open = find({answer.value().file().id()})) open->know(answer.value().file());
    reply_attributes(request, answer.value().file());
  });
}

void File_system::get_xattr(fuse_req_t request, fuse_ino_t inode, char const* name,
                            std::size_t size) {
  bool const is_list = name == nullptr;
  if (is_list) return reply_text(request, attribute_list(), size);
  std::string const own(own_name(name));
  // The kernel asks for security.capability before every write: not worth a question.
  if (own.empty()) {
    ::fuse_reply_err(request, ENODATA);
    return;
  }
  look_at(inode, [request, own, size](int why, proto::File const& file) {
    if (why != 0) {
      ::fuse_reply_err(request, why);
      return;
    }
    auto const text = attribute_text(file.attributes(), own);
    if (text.has_error())
      ::fuse_reply_err(request, ENODATA);
    else
      reply_text(request, text.value(), size);
  });
}

void File_system::set_xattr(fuse_req_t request, fuse_ino_t inode, char const* name,
                            char const* value, std::size_t size, int flags) {
  std::string const own(own_name(name));
  if (own.empty() || (flags & XATTR_CREATE) != 0) {
    ::fuse_reply_err(request, own.empty() ? EOPNOTSUPP : EEXIST);
    return;
  }
  auto change = attribute_change(own, std::string(value, size));
  if (change.has_error()) {
    ::fuse_reply_err(request,
                     errc_of(change.error().code) == Errc::not_found ? EOPNOTSUPP : EINVAL);
    return;
  }
  proto::Mds_request command;
  command.mutable_set_attributes()->set_path(path_of(inode));
  *command.mutable_set_attributes()->mutable_attributes() = std::move(change).value();
  ask(std::move(command), [request](Outcome<proto::Mds_reply> answer) {
    ::fuse_reply_err(request, answer.has_error() ? errno_of(answer.error().code) : 0);
  });
}

void File_system::space(fuse_req_t request) {
  auto const reply = [this, request] {
    struct statvfs result = {};
    result.f_bsize = transfer;
    result.f_frsize = fragment;
    result.f_blocks = space_.allocatable_total_bytes() / fragment;
    result.f_bfree = result.f_bavail = space_.allocatable_bytes() / fragment;
    result.f_files = inodes_shown;
    result.f_ffree = result.f_favail = inodes_shown - space_.inodes();
    result.f_namemax = 255;
    ::fuse_reply_statfs(request, &result);
  };
  if (space_known_at_ != Time_point{} && clock_.now() - space_known_at_ < space_age_max)
    return reply();
  proto::Mds_request query;
  query.mutable_get_status();
  ask(std::move(query), [this, request, reply](Outcome<proto::Mds_reply> answer) {
    if (answer.has_error()) {
      ::fuse_reply_err(request, errno_of(answer.error().code));
      return;
    }
    space_ = answer.value().cluster_status();
    space_.clear_services();
    space_known_at_ = clock_.now();
    reply();
  });
}

}  // namespace pstorage::mount
