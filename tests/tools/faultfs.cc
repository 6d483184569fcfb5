// A file system that passes everything to a directory below, except what it is told to spoil: a
// disk that is slow, hangs, fails or lies, for system tests with real processes.
//
//   faultfs DIRECTORY MOUNTPOINT CONTROL
//
// stays in the foreground until it is unmounted. CONTROL is a file that may be changed at any time
// (replace it by rename); a line a fault, the first that fits holds:
//
//   delay OPERATION MILLISECONDS [PART]   the operation takes so much longer
//   fail OPERATION ERRNO [PART]           it fails with that number
//   hang OPERATION [PART]                 it waits until the line is gone
//   lie sync [PART]                       a sync answers at once and does nothing
//   cache write [PART]                    writes inside the file stay in memory until a sync that
//                                         does not lie: a kill of this process is a power cut
//
// OPERATION: read, write, sync (fsync and fdatasync), any. PART: only files whose path has it.
#define FUSE_USE_VERSION 35
#include <dirent.h>
#include <fcntl.h>
#include <fuse.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Fault {
  std::string verb;
  std::string operation;
  int number = 0;
  std::string part;
};

/// The control file, read again when it is another one. Thread-safe.
class Control {
 public:
  explicit Control(std::string path) : path_(std::move(path)) {}

  std::optional<Fault> find(char const* operation, std::string const& path) {
    std::lock_guard const lock(mutex_);
    refresh();
    for (Fault const& fault : faults_) {
      bool const fits = fault.operation == "any" || fault.operation == operation;
      if (fits && path.find(fault.part) != std::string::npos) return fault;
    }
    return std::nullopt;
  }

 private:
  void refresh() {
    struct stat status {};
    if (::stat(path_.c_str(), &status) != 0) {
      inode_ = 0;
      faults_.clear();
      return;
    }
    if (status.st_ino == inode_ && status.st_mtim.tv_nsec == nanoseconds_) return;
    inode_ = status.st_ino;
    nanoseconds_ = status.st_mtim.tv_nsec;
    faults_.clear();
    std::ifstream file(path_);
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      Fault fault;
      words >> fault.verb >> fault.operation;
      if (fault.verb == "delay" || fault.verb == "fail") words >> fault.number;
      if (!words) continue;
      words >> fault.part;
      faults_.push_back(fault);
    }
  }

  std::string const path_;
  std::mutex mutex_;
  ino_t inode_ = 0;
  long nanoseconds_ = 0;
  std::vector<Fault> faults_;
};

/// What a disk with a volatile cache has not written yet. Thread-safe.
class Write_cache {
 public:
  void write(std::string const& path, off_t offset, std::string data) {
    std::lock_guard const lock(mutex_);
    files_[path].push_back({offset, std::move(data)});
  }
  /// Lays over `to`, read from `offset`, what is newer.
  void lay_over(std::string const& path, char* to, std::size_t bytes, off_t offset) {
    std::lock_guard const lock(mutex_);
    auto const found = files_.find(path);
    if (found == files_.end()) return;
    auto const end = offset + static_cast<off_t>(bytes);
    for (auto const& [at, data] : found->second) {
      auto const first = std::max(at, offset);
      auto const last = std::min(at + static_cast<off_t>(data.size()), end);
      if (first < last)
        std::copy_n(data.data() + (first - at), last - first, to + (first - offset));
    }
  }
  bool write_out(std::string const& path, int descriptor) {
    std::lock_guard const lock(mutex_);
    for (auto const& [at, data] : files_[path]) {
      if (::pwrite(descriptor, data.data(), data.size(), at) < 0) return false;
    }
    files_.erase(path);
    return true;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::vector<std::pair<off_t, std::string>>> files_;
};

Write_cache cache;
std::string base;
Control* control = nullptr;

std::string below(char const* path) { return base + path; }
int result_of(long result) { return result < 0 ? -errno : static_cast<int>(result); }

struct Open_file {
  int descriptor;
  std::string path;  // the file may have lost its name since
};
Open_file& file_of(fuse_file_info const* info) {
  return *reinterpret_cast<Open_file*>(info->fh);  // NOLINT(performance-no-int-to-ptr): FUSE's way
}
int descriptor_of(fuse_file_info const* info) { return file_of(info).descriptor; }

/// Applies the fault that fits; a number: the operation is over with it.
std::optional<int> spoil(char const* operation, std::string const& path) {
  auto fault = control->find(operation, path);
  while (fault && fault->verb == "hang") {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    fault = control->find(operation, path);
  }
  if (!fault) return std::nullopt;
  if (fault->verb == "fail") return -fault->number;
  if (fault->verb == "lie") return 0;
  if (fault->verb == "delay") {
    std::this_thread::sleep_for(std::chrono::milliseconds(fault->number));
  }
  return std::nullopt;
}

int get_attributes(char const* path, struct stat* to, fuse_file_info* info) {
  return result_of(info != nullptr ? ::fstat(descriptor_of(info), to)
                                   : ::lstat(below(path).c_str(), to));
}

int open_directory(char const* path, fuse_file_info* info) {
  info->fh = reinterpret_cast<std::uint64_t>(new Open_file{-1, path});
  return 0;
}

int close_directory(char const*, fuse_file_info* info) {
  delete &file_of(info);
  return 0;
}

int read_directory(char const*, void* buffer, fuse_fill_dir_t fill, off_t, fuse_file_info* info,
                   fuse_readdir_flags) {
  DIR* const directory = ::opendir(below(file_of(info).path.c_str()).c_str());
  if (directory == nullptr) return -errno;
  while (dirent const* entry = ::readdir(directory)) {  // NOLINT(concurrency-mt-unsafe): own DIR
    fill(buffer, entry->d_name, nullptr, 0, fuse_fill_dir_flags{});
  }
  ::closedir(directory);
  return 0;
}

/// Past the page cache: every read is to reach this program.
int keep(int descriptor, char const* path, fuse_file_info* info) {
  if (descriptor < 0) return -errno;
  info->fh = reinterpret_cast<std::uint64_t>(new Open_file{descriptor, path});
  info->direct_io = 1;
  return 0;
}

int open_file(char const* path, fuse_file_info* info) {
  return keep(::open(below(path).c_str(), info->flags & ~O_DIRECT), path, info);
}

int create_file(char const* path, mode_t mode, fuse_file_info* info) {
  int const flags = (info->flags & ~O_DIRECT) | O_CREAT;
  return keep(::open(below(path).c_str(), flags, mode), path, info);
}

int make_node(char const* path, mode_t mode, dev_t device) {
  return result_of(::mknod(below(path).c_str(), mode, device));
}

int read_file(char const*, char* to, std::size_t bytes, off_t offset, fuse_file_info* info) {
  if (auto const over = spoil("read", file_of(info).path)) return *over;
  auto const result = ::pread(descriptor_of(info), to, bytes, offset);
  if (result > 0) cache.lay_over(file_of(info).path, to, static_cast<std::size_t>(result), offset);
  return result_of(result);
}

int write_file(char const*, char const* from, std::size_t bytes, off_t offset,
               fuse_file_info* info) {
  auto const& path = file_of(info).path;
  if (auto const over = spoil("write", path)) return *over;
  auto const fault = control->find("write", path);
  struct stat status {};
  if (fault && fault->verb == "cache" && ::fstat(descriptor_of(info), &status) == 0 &&
      offset + static_cast<off_t>(bytes) <= status.st_size) {
    cache.write(path, offset, {from, bytes});
    return static_cast<int>(bytes);
  }
  return result_of(::pwrite(descriptor_of(info), from, bytes, offset));
}

int sync_file(char const*, int data_only, fuse_file_info* info) {
  if (auto const over = spoil("sync", file_of(info).path)) return *over;
  int const descriptor = descriptor_of(info);
  if (!cache.write_out(file_of(info).path, descriptor)) return -errno;
  return result_of(data_only != 0 ? ::fdatasync(descriptor) : ::fsync(descriptor));
}

int sync_directory(char const*, int, fuse_file_info* info) {
  auto const& path = file_of(info).path;
  if (auto const over = spoil("sync", path)) return *over;
  int const descriptor = ::open(below(path.c_str()).c_str(), O_RDONLY | O_DIRECTORY);
  if (descriptor < 0) return -errno;
  int const result = result_of(::fsync(descriptor));
  ::close(descriptor);
  return result;
}

int close_file(char const*, fuse_file_info* info) {
  int const result = result_of(::close(descriptor_of(info)));
  delete &file_of(info);
  return result;
}

void* begin(fuse_conn_info*, fuse_config* settings) {
  settings->hard_remove = 1;  // no .fuse_hidden files in the repository
  settings->nullpath_ok = 1;
  return nullptr;
}

int cut_file(char const* path, off_t size, fuse_file_info* info) {
  return result_of(info != nullptr ? ::ftruncate(descriptor_of(info), size)
                                   : ::truncate(below(path).c_str(), size));
}

int allocate(char const*, int mode, off_t offset, off_t length, fuse_file_info* info) {
  return result_of(::fallocate(descriptor_of(info), mode, offset, length));
}

int make_directory(char const* path, mode_t mode) {
  return result_of(::mkdir(below(path).c_str(), mode));
}
int remove_file(char const* path) { return result_of(::unlink(below(path).c_str())); }
int remove_directory(char const* path) { return result_of(::rmdir(below(path).c_str())); }
int rename_file(char const* from, char const* to, unsigned flags) {
  if (flags != 0) return -EINVAL;
  return result_of(::rename(below(from).c_str(), below(to).c_str()));
}
int change_mode(char const* path, mode_t mode, fuse_file_info*) {
  return result_of(::chmod(below(path).c_str(), mode));
}
int make_link(char const* target, char const* path) {
  return result_of(::symlink(target, below(path).c_str()));
}
int read_link(char const* path, char* to, std::size_t bytes) {
  auto const length = ::readlink(below(path).c_str(), to, bytes - 1);
  if (length < 0) return -errno;
  to[length] = '\0';
  return 0;
}
int get_space(char const* path, struct statvfs* to) {
  return result_of(::statvfs(below(path).c_str(), to));
}

fuse_operations operations() {
  fuse_operations all{};
  all.init = begin;
  all.mknod = make_node;
  all.getattr = get_attributes;
  all.opendir = open_directory;
  all.releasedir = close_directory;
  all.readdir = read_directory;
  all.open = open_file;
  all.create = create_file;
  all.read = read_file;
  all.write = write_file;
  all.fsync = sync_file;
  all.fsyncdir = sync_directory;
  all.release = close_file;
  all.truncate = cut_file;
  all.fallocate = allocate;
  all.mkdir = make_directory;
  all.unlink = remove_file;
  all.rmdir = remove_directory;
  all.rename = rename_file;
  all.chmod = change_mode;
  all.symlink = make_link;
  all.readlink = read_link;
  all.statfs = get_space;
  return all;
}

}  // namespace

int main(int count, char** words) {
  if (count != 4) {
    std::fprintf(stderr, "usage: faultfs DIRECTORY MOUNTPOINT CONTROL\n");
    return 2;
  }
  base = words[1];
  Control its_control(words[3]);
  control = &its_control;
  std::string program = "faultfs", foreground = "-f", options = "-ofsname=faultfs";
  std::string mount_point = words[2];
  std::vector<char*> arguments{program.data(), foreground.data(), options.data(),
                               mount_point.data()};
  auto const all = operations();
  return fuse_main(static_cast<int>(arguments.size()), arguments.data(), &all, nullptr);
}
