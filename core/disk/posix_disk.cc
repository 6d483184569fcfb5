#include "core/disk/posix_disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>

#include "core/assert.h"
#include "core/disk/file_descriptor.h"
#include "core/disk/posix_file.h"

namespace pstorage {
namespace {

std::error_code last_error() { return {errno, std::generic_category()}; }

Result<void> checked(int result) {
  if (result < 0) return last_error();
  return success();
}

// Names come from our own code; one that leaves the tree is a bug.
void check_name(std::string const& name) {
  PS_ASSERT(!name.starts_with('/'));
  PS_ASSERT(name != ".." && !name.starts_with("../") && !name.ends_with("/.."));
  PS_ASSERT(name.find("/../") == std::string::npos);
}

char const* path_of(std::string const& name) { return name.empty() ? "." : name.c_str(); }

class Posix_disk final : public Disk {
 public:
  Posix_disk(File_descriptor root, Io_pool& pool, Post post)
      : root_(std::move(root)), pool_(pool), post_(std::move(post)) {}

  Result<std::unique_ptr<File>> open(std::string const& name, Open_mode mode) override {
    check_name(name);
    int flags = O_RDWR | O_CLOEXEC;
    if (mode.create || mode.exclusive) flags |= O_CREAT;
    if (mode.exclusive) flags |= O_EXCL;
    File_descriptor fd(::openat(root_.get(), name.c_str(), flags, 0644));
    if (!fd) return last_error();
    return open_posix_file(std::move(fd), mode.random, pool_, post_);
  }

  bool exists(std::string const& name) override {
    check_name(name);
    return ::faccessat(root_.get(), path_of(name), F_OK, 0) == 0;
  }

  Result<std::vector<std::string>> list(std::string const& name) override {
    check_name(name);
    File_descriptor fd(::openat(root_.get(), path_of(name), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) return last_error();
    DIR* const directory = ::fdopendir(fd.get());
    if (directory == nullptr) return last_error();
    fd.release();  // closedir closes it
    std::vector<std::string> names;
    errno = 0;
    while (dirent const* const entry = ::readdir(directory)) {
      std::string const found = entry->d_name;
      if (found != "." && found != "..") names.push_back(found);
      errno = 0;
    }
    auto const error = last_error();
    ::closedir(directory);
    if (error) return error;
    return names;
  }

  Result<void> make_directory(std::string const& name) override {
    check_name(name);
    return checked(::mkdirat(root_.get(), name.c_str(), 0755));
  }

  Result<void> remove(std::string const& name) override {
    check_name(name);
    int result = ::unlinkat(root_.get(), name.c_str(), 0);
    if (result < 0 && (errno == EISDIR || errno == EPERM))
      result = ::unlinkat(root_.get(), name.c_str(), AT_REMOVEDIR);
    return checked(result);
  }

  Result<void> rename(std::string const& from, std::string const& to) override {
    check_name(from);
    check_name(to);
    return checked(::renameat(root_.get(), from.c_str(), root_.get(), to.c_str()));
  }

  Result<void> sync_directory(std::string const& name) override {
    check_name(name);
    File_descriptor const fd(
        ::openat(root_.get(), path_of(name), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) return last_error();
    return checked(::fsync(fd.get()));
  }

  void sync_directory_async(std::string const& name, Disk_completion done) override {
    check_name(name);
    // A descriptor of its own, so that the job stays valid whatever happens to this object.
    auto fd = std::make_shared<File_descriptor>(
        ::openat(root_.get(), path_of(name), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int const open_error = *fd ? 0 : errno;
    std::weak_ptr<int> alive = alive_;
    pool_.run(
        [fd, open_error, alive = std::move(alive), done = std::move(done), post = post_]() mutable {
          int error = open_error;
          if (error == 0 && ::fsync(fd->get()) != 0) error = errno;
          post([error, alive = std::move(alive), done = std::move(done)] {
            if (alive.expired()) return;
            if (error != 0)
              done(std::error_code(error, std::generic_category()));
            else
              done(success());
          });
        });
  }

  Result<Disk_space> space() override {
    struct statvfs status {};
    if (::fstatvfs(root_.get(), &status) != 0) return last_error();
    return Disk_space{.total_bytes = std::uint64_t{status.f_blocks} * status.f_frsize,
                      .free_bytes = std::uint64_t{status.f_bavail} * status.f_frsize};
  }

 private:
  File_descriptor root_;
  Io_pool& pool_;
  Post post_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);  // gone with this object
};

}  // namespace

Outcome<std::unique_ptr<Disk>> open_posix_disk(std::string const& root, Io_pool& pool, Post post) {
  File_descriptor fd(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) {
    auto const code = last_error();
    return failure(code, "cannot open the directory " + root + ": " + code.message());
  }
  std::unique_ptr<Disk> disk = std::make_unique<Posix_disk>(std::move(fd), pool, std::move(post));
  return disk;
}

}  // namespace pstorage
