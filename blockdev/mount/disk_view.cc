#include "blockdev/mount/disk_view.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "blockdev/mount/errno_of.h"
#include "blockdev/volume/names.h"

namespace pstorage::mount {
namespace {

constexpr Duration names_patience = std::chrono::seconds(60);
constexpr std::size_t extents_a_look = 1u << 16;
constexpr std::uint64_t sector = 512;

int reply_code(Result<void> const& result) {
  return result.has_error() ? errno_of(result.error()) : 0;
}

}  // namespace

struct Disk_view::Disk {
  std::string name;
  std::unique_ptr<client::Volume> volume;
  bool opening = false;
  bool closing = false;
  std::uint32_t users = 0;
  struct Waiting {
    fuse_req_t request;
    fuse_file_info info;
  };
  std::vector<Waiting> waiting;
};

struct Disk_view::Directory {
  std::string name;
  std::vector<std::pair<proto::File, Entry>> entries;
};

Disk_view::Disk_view(client::Cluster& cluster, Executor& executor, Clock& clock, Log& log,
                     Defaults const& defaults, Duration busy_patience)
    : cluster_(cluster),
      executor_(executor),
      log_(log),
      defaults_(defaults),
      busy_patience_(busy_patience),
      opener_(cluster, executor, clock, log) {}

Disk_view::~Disk_view() {
  *alive_ = false;
  disks_.clear();
}

void Disk_view::ask(proto::Mds_request request,
                    std::function<void(Outcome<proto::Mds_reply>)> done) {
  cluster_.mds().call(std::move(request), names_patience,
                      [alive = alive_, done = std::move(done)](Outcome<proto::Mds_reply> answer) {
                        if (*alive) done(std::move(answer));
                      });
}

Disk_view::Entry Disk_view::entry_of(proto::File const& file) const {
  auto const disk = disks_.find(file.id() | view_bit);
  bool const is_open = disk != disks_.end() && disk->second->volume != nullptr;
  if (is_open) return {.is_directory = false, .size = disk->second->volume->size_bytes()};
  if (file.type() == proto::TYPE_FILE) return {.is_directory = false, .size = file.size()};
  if (!file.properties().contains(volume::format_property)) return {.is_directory = true};
  Entry entry;
  auto const found = file.properties().find(volume::size_property);
  if (found != file.properties().end()) {
    auto const& text = found->second;
    std::from_chars(text.data(), text.data() + text.size(), entry.size);
  }
  return entry;
}

struct stat Disk_view::stat_of(fuse_ino_t inode, Entry const& entry) const {
  struct stat result = {};
  result.st_ino = inode;
  result.st_uid = defaults_.uid;
  result.st_gid = defaults_.gid;
  result.st_nlink = 1;
  result.st_mode = entry.is_directory ? S_IFDIR | 0700 : S_IFREG | 0600;
  result.st_size = static_cast<off_t>(entry.size);
  result.st_blocks = static_cast<blkcnt_t>(entry.size / sector);
  return result;
}

// ------------------------------------------------------------------ names

void Disk_view::look_up_root(fuse_req_t request) {
  proto::Mds_request query;
  query.mutable_lookup()->set_path(volume::volumes_root);
  ask(std::move(query), [this, request](Outcome<proto::Mds_reply> answer) {
    if (answer.has_error()) {  // no volume yet
      ::fuse_reply_err(request, errno_of(answer.error().code));
      return;
    }
    fuse_entry_param entry = {};
    entry.ino = answer.value().file().id() | view_bit;
    entry.attr = stat_of(entry.ino, {.is_directory = true});
    names_[entry.ino] = "";
    ::fuse_reply_entry(request, &entry);
  });
}

void Disk_view::lookup(fuse_req_t request, fuse_ino_t parent, char const* name) {
  auto const known = names_.find(parent);
  if (known == names_.end() || name[0] == '.' || check_name(name) != 0) {
    ::fuse_reply_err(request, known == names_.end() ? ESTALE : ENOENT);
    return;
  }
  std::string const last(name);
  auto const full = known->second.empty() ? last : known->second + "/" + last;
  proto::Mds_request query;
  query.mutable_lookup()->set_path(
      path_in(parent & ~view_bit, std::string_view(last).substr(0, last.find('@'))));
  ask(std::move(query), [this, request, full](Outcome<proto::Mds_reply> answer) {
    auto const shown = answer.has_value() ? entry_of(answer.value().file()) : Entry{};
    bool const is_snapshot = full.find('@') != std::string::npos;
    if (answer.has_error() || (is_snapshot && shown.is_directory)) {
      ::fuse_reply_err(request, answer.has_error() ? errno_of(answer.error().code) : ENOENT);
      return;
    }
    fuse_entry_param entry = {};
    entry.ino = inode_of(full, answer.value().file().id());
    entry.attr = stat_of(entry.ino, shown);
    names_[entry.ino] = full;
    ::fuse_reply_entry(request, &entry);
  });
}

/// A snapshot is not known to the MDS by a name of its own: whether there is one the open tells.
fuse_ino_t Disk_view::inode_of(std::string const& name, std::uint64_t id) {
  if (name.find('@') == std::string::npos) return id | view_bit;
  auto& inode = snapshots_[name];
  if (inode == 0) inode = view_bit | snapshot_bit | snapshots_.size();
  bases_[inode] = id;
  return inode;
}

std::uint64_t Disk_view::id_of(fuse_ino_t inode) const {
  auto const base = bases_.find(inode);
  return base == bases_.end() ? inode & ~view_bit : base->second;
}

void Disk_view::get_attributes(fuse_req_t request, fuse_ino_t inode) {
  if (auto const disk = disks_.find(inode); disk != disks_.end() && disk->second->volume) {
    auto const shown =
        stat_of(inode, {.is_directory = false, .size = disk->second->volume->size_bytes()});
    ::fuse_reply_attr(request, &shown, 0);
    return;
  }
  proto::Mds_request query;
  query.mutable_lookup()->set_path(path_of(id_of(inode)));
  ask(std::move(query), [this, request, inode](Outcome<proto::Mds_reply> answer) {
    if (answer.has_error()) {
      int const why = errno_of(answer.error().code);
      ::fuse_reply_err(request, why == ENOENT ? ESTALE : why);
      return;
    }
    auto const shown = stat_of(inode, entry_of(answer.value().file()));
    ::fuse_reply_attr(request, &shown, 0);
  });
}

void Disk_view::open_directory(fuse_req_t request, fuse_ino_t inode, fuse_file_info info) {
  proto::Mds_request query;
  query.mutable_list_directory()->set_path(path_of(inode & ~view_bit));
  ask(std::move(query), [this, request, info](Outcome<proto::Mds_reply> answer) mutable {
    if (answer.has_error()) {
      ::fuse_reply_err(request, errno_of(answer.error().code));
      return;
    }
    auto* const directory = new Directory;
    for (auto const& file : answer.value().files().files())
      if (!file.name().starts_with('.')) directory->entries.emplace_back(file, entry_of(file));
    info.fh = reinterpret_cast<std::uint64_t>(directory);
    ::fuse_reply_open(request, &info);
  });
}

void Disk_view::read_directory(fuse_req_t request, std::size_t size, off_t offset,
                               fuse_file_info const& info, bool plus) {
  auto const& directory = *reinterpret_cast<Directory*>(info.fh);
  std::vector<char> buffer(size);
  std::size_t used = 0;
  for (auto at = static_cast<std::size_t>(offset); at < directory.entries.size(); ++at) {
    auto const& [file, entry] = directory.entries[at];
    fuse_entry_param shown = {};  // inode 0: the kernel looks it up itself
    shown.attr = stat_of(file.id() | view_bit, entry);
    auto const next = static_cast<off_t>(at) + 1;
    char* const place = buffer.data() + used;
    auto const* const text = file.name().c_str();
    auto const bytes =
        plus ? ::fuse_add_direntry_plus(request, place, size - used, text, &shown, next)
             : ::fuse_add_direntry(request, place, size - used, text, &shown.attr, next);
    if (bytes > size - used) break;
    used += bytes;
  }
  ::fuse_reply_buf(request, buffer.data(), used);
}

void Disk_view::release_directory(fuse_req_t request, fuse_file_info const& info) {
  delete reinterpret_cast<Directory*>(info.fh);
  ::fuse_reply_err(request, 0);
}

// ------------------------------------------------------------------ open disks

Disk_view::Disk& Disk_view::disk_of(fuse_file_info const& info) {
  return *reinterpret_cast<Disk*>(info.fh);
}

void Disk_view::open(fuse_req_t request, fuse_ino_t inode, fuse_file_info const& info) {
  auto const known = names_.find(inode);
  if (known == names_.end()) {
    ::fuse_reply_err(request, ESTALE);
    return;
  }
  auto& disk = disks_[inode];
  if (disk == nullptr) disk = std::make_unique<Disk>();
  disk->name = known->second;
  ++disk->users;
  disk->waiting.push_back({request, info});
  if (disk->closing || disk->opening) return;  // then it is opened, or answered, later
  if (disk->volume != nullptr) return answer_open(*disk, 0);
  disk->opening = true;
  opener_.open(disk->name, busy_patience_,
               [this, inode, alive = alive_](Outcome<std::unique_ptr<client::Volume>> volume) {
                 if (*alive) opened(inode, std::move(volume));
               });
}

void Disk_view::opened(fuse_ino_t inode, Outcome<std::unique_ptr<client::Volume>> volume) {
  auto& disk = *disks_.at(inode);
  disk.opening = false;
  if (volume.has_value()) {
    disk.volume = std::move(volume).value();
    log_.info("a volume is open as a disk", {{"volume", disk.name}});
    return answer_open(disk, 0);
  }
  log_.warn("cannot open a volume", {{"volume", disk.name}, {"reason", volume.error().text}});
  answer_open(disk, errno_of(volume.error().code));
  disks_.erase(inode);
}

void Disk_view::answer_open(Disk& disk, int why) {
  for (auto& waiting : std::exchange(disk.waiting, {})) {
    bool const writes = (waiting.info.flags & O_ACCMODE) != O_RDONLY;
    bool const is_refused = why == 0 && writes && disk.volume->is_read_only();
    if (why != 0 || is_refused) {
      --disk.users;
      ::fuse_reply_err(waiting.request, why != 0 ? why : EROFS);
      continue;
    }
    waiting.info.fh = reinterpret_cast<std::uint64_t>(&disk);
    // Whoever uses a disk (loop, qemu) has a cache of its own.
    waiting.info.direct_io = 1;
    ::fuse_reply_open(waiting.request, &waiting.info);
  }
}

void Disk_view::release(fuse_req_t request, fuse_file_info const& info) {
  auto& disk = disk_of(info);
  --disk.users;
  ::fuse_reply_err(request, 0);
}

void Disk_view::close_if_idle(fuse_ino_t inode) {
  auto& disk = *disks_.at(inode);
  disk.closing = true;
  disk.volume->close([this, inode, alive = alive_](Result<void> closed) {
    if (!*alive) return;
    auto& done = *disks_.at(inode);
    if (closed.has_error())
      log_.error("a volume could not be closed: its last writes may be lost",
                 {{"volume", done.name}, {"reason", closed.error().message()}});
    // Not inside its own callback.
    executor_.defer([volume = std::shared_ptr<client::Volume>(std::move(done.volume))] {});
    done.closing = false;
    if (done.waiting.empty()) {
      disks_.erase(inode);
      return;
    }
    auto const waiting = std::exchange(done.waiting, {});
    done.users -= static_cast<std::uint32_t>(waiting.size());
    for (auto const& one : waiting) open(one.request, inode, one.info);
  });
}

void Disk_view::on_tick() {
  opener_.on_tick();
  std::vector<fuse_ino_t> idle;
  for (auto& [inode, disk] : disks_) {
    if (disk->users == 0 && disk->volume != nullptr && !disk->closing) idle.push_back(inode);
  }
  for (auto const inode : idle) close_if_idle(inode);
  if (stopped_ && disks_.empty()) std::exchange(stopped_, nullptr)();
}

void Disk_view::stop(std::function<void()> done) {
  // The kernel has gone: nobody releases what was open.
  for (auto& [_, disk] : disks_) {
    disk->users = 0;
    disk->waiting.clear();
  }
  stopped_ = std::move(done);
}

// ------------------------------------------------------------------ data

void Disk_view::read(fuse_req_t request, std::size_t size, off_t offset,
                     fuse_file_info const& info) {
  auto& volume = *disk_of(info).volume;
  auto const from = std::min(static_cast<std::uint64_t>(offset), volume.size_bytes());
  auto const length = std::min<std::uint64_t>(size, volume.size_bytes() - from);
  if (length == 0) {
    ::fuse_reply_buf(request, nullptr, 0);
    return;
  }
  volume.read(from, length, [request](Result<std::vector<Slice>> data) {
    if (data.has_error()) {
      ::fuse_reply_err(request, errno_of(data.error()));
      return;
    }
    std::vector<iovec> parts;
    parts.reserve(data.value().size());
    for (auto& part : data.value()) parts.push_back({part.data(), part.size()});
    ::fuse_reply_iov(request, parts.data(), static_cast<int>(parts.size()));
  });
}

void Disk_view::write(fuse_req_t request, char const* data, std::size_t size, off_t offset,
                      fuse_file_info const& info) {
  auto& volume = *disk_of(info).volume;
  auto const from = static_cast<std::uint64_t>(offset);
  if (from > volume.size_bytes() || size > volume.size_bytes() - from) {
    ::fuse_reply_err(request, ENOSPC);  // as a disk: its end is its end
    return;
  }
  auto const* const bytes = reinterpret_cast<std::byte const*>(data);
  volume.write(from, {Slice::copy_of({bytes, size})}, false,
               [request, size](Result<void> const& written) {
                 if (written.has_error())
                   ::fuse_reply_err(request, errno_of(written.error()));
                 else
                   ::fuse_reply_write(request, size);
               });
}

void Disk_view::sync(fuse_req_t request, fuse_file_info const& info) {
  disk_of(info).volume->flush(
      [request](Result<void> const& done) { ::fuse_reply_err(request, reply_code(done)); });
}

void Disk_view::allocate(fuse_req_t request, int mode, off_t offset, off_t length,
                         fuse_file_info const& info) {
  auto& volume = *disk_of(info).volume;
  int const kind = mode & ~FALLOC_FL_KEEP_SIZE;
  auto const from = std::min(static_cast<std::uint64_t>(offset), volume.size_bytes());
  auto const bytes = std::min(static_cast<std::uint64_t>(length), volume.size_bytes() - from);
  bool const is_punch = kind == FALLOC_FL_PUNCH_HOLE;
  if ((!is_punch && kind != FALLOC_FL_ZERO_RANGE) || bytes == 0) {
    ::fuse_reply_err(request, bytes == 0 ? 0 : EOPNOTSUPP);
    return;
  }
  volume.zero(from, bytes, false, false,
              [request](Result<void> const& done) { ::fuse_reply_err(request, reply_code(done)); });
}

void Disk_view::seek(fuse_req_t request, off_t offset, int whence, fuse_file_info const& info) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) {
    ::fuse_reply_err(request, EINVAL);
    return;
  }
  seek_from(request, disk_of(info), static_cast<std::uint64_t>(offset), whence == SEEK_HOLE);
}

void Disk_view::seek_from(fuse_req_t request, Disk& disk, std::uint64_t offset, bool hole) {
  auto& volume = *disk.volume;
  if (offset >= volume.size_bytes()) {
    ::fuse_reply_err(request, ENXIO);
    return;
  }
  volume.extents(offset, volume.size_bytes() - offset, extents_a_look,
                 [this, request, &disk, offset, hole,
                  alive = alive_](Result<std::vector<client::Extent>> const& extents) {
                   if (!*alive || extents.has_error()) {
                     ::fuse_reply_err(request, *alive ? errno_of(extents.error()) : EIO);
                     return;
                   }
                   auto at = offset;
                   for (auto const& extent : extents.value()) {
                     if (extent.hole == hole) {
                       ::fuse_reply_lseek(request, static_cast<off_t>(at));
                       return;
                     }
                     at += extent.length;
                   }
                   if (at < disk.volume->size_bytes()) return seek_from(request, disk, at, hole);
                   if (hole)
                     ::fuse_reply_lseek(request, static_cast<off_t>(at));
                   else
                     ::fuse_reply_err(request, ENXIO);
                 });
}

}  // namespace pstorage::mount
