#include "blockdev/ploop/local_disk.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <filesystem>

#include "core/assert.h"

namespace pstorage::ploop {

Local_path split_path(std::string const& path) {
  auto const whole = std::filesystem::absolute(path).lexically_normal();
  return {whole.parent_path(), whole.filename()};
}

Outcome<std::unique_ptr<Local_directory>> Local_directory::open(std::string const& directory) {
  std::unique_ptr<Local_directory> local(new Local_directory());
  local->path_ = directory;
  auto const post = [queue = &local->queue_](std::function<void()> work) {
    queue->defer(std::move(work));
  };
  PS_TRY(local->disk_, open_posix_disk("/", local->pool_, post));
  local->images_ =
      std::make_unique<Disk_directory>(*local->disk_, directory, local->queue_, local->turn());
  return local;
}

Turn Local_directory::turn() {
  // Local stores answer through the queue: an empty one would mean a lost answer.
  return [this] {
    PS_ASSERT(queue_.run_one());
    return true;
  };
}

Outcome<void> Local_directory::lock(std::string const& descriptor) {
  auto const path = path_ + "/" + descriptor + ".lck";
  lock_ = File_descriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  std::error_code const error(errno, std::generic_category());
  if (!lock_) return failure(error, "cannot lock " + path + ": " + error.message());
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0)
    return failure(Errc::busy, path + " is locked: another command works on this disk; try again");
  return success();
}

}  // namespace pstorage::ploop
