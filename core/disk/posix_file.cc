#include "core/disk/posix_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <limits>

#include "core/assert.h"
#include "core/ids.h"

namespace pstorage {
namespace {

std::error_code last_error() { return {errno, std::generic_category()}; }

// Cutting writes keeps ext4's page-cache folios small: on kernels from 6.16 a 4 KiB overwrite of a
// large folio costs 10 times more (facts/datapath.md 5).
constexpr std::size_t ext4_piece_bytes = 64u << 10;
constexpr std::size_t parts_a_call = 64;
static_assert(parts_a_call <= IOV_MAX);

/// Cuts a list of parts into system calls of at most `piece` bytes.
class Gather {
 public:
  Gather(std::span<Bytes const> parts, std::size_t piece) : parts_(parts), piece_(piece) {}

  /// The next call's vector; empty when everything is written.
  std::span<iovec const> next() {
    std::size_t count = 0;
    std::size_t room = piece_;
    std::size_t part = part_;
    std::size_t offset = offset_;
    while (part < parts_.size() && count < parts_a_call && room > 0) {
      auto const rest = parts_[part].subspan(offset);
      auto const take = std::min(rest.size(), room);
      if (take > 0) vector_[count++] = {const_cast<std::byte*>(rest.data()), take};
      room -= take;
      offset = 0;
      ++part;
    }
    return {vector_.data(), count};
  }

  void advance(std::size_t bytes) {
    while (bytes > 0) {
      PS_ASSERT(part_ < parts_.size());
      auto const rest = parts_[part_].size() - offset_;
      if (bytes < rest) {
        offset_ += bytes;
        return;
      }
      bytes -= rest;
      ++part_;
      offset_ = 0;
    }
  }

 private:
  std::span<Bytes const> parts_;
  std::size_t piece_;
  std::size_t part_ = 0;
  std::size_t offset_ = 0;
  std::array<iovec, parts_a_call> vector_;
};

Result<void> read_fully(int fd, std::uint64_t offset, Mutable_bytes to, int flags) {
  while (!to.empty()) {
    iovec const part{to.data(), to.size()};
    auto const got = ::preadv2(fd, &part, 1, static_cast<off_t>(offset), flags);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return last_error();
    if (got == 0) {
      std::fill(to.begin(), to.end(), std::byte{0});
      break;
    }
    offset += static_cast<std::uint64_t>(got);
    to = to.subspan(static_cast<std::size_t>(got));
  }
  return success();
}

/// What an asynchronous operation shares with its file.
struct Pending {
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t on_helpers = 0;  // guarded by mutex
  bool file_gone = false;      // loop thread only
};

class Posix_file final : public File {
 public:
  Posix_file(File_descriptor fd, std::size_t piece, bool in_memory, Io_pool& pool, Post post)
      : fd_(std::move(fd)),
        piece_(piece),
        in_memory_(in_memory),
        pool_(pool),
        post_(std::move(post)) {}

  ~Posix_file() override {
    pending_->file_gone = true;
    std::unique_lock lock(pending_->mutex);
    pending_->changed.wait(lock, [this] { return pending_->on_helpers == 0; });
  }

  using File::write;
  Result<void> write(std::uint64_t offset, std::span<Bytes const> parts) override {
    Gather gather(parts, piece_);
    for (auto vector = gather.next(); !vector.empty(); vector = gather.next()) {
      auto const written = ::pwritev(fd_.get(), vector.data(), static_cast<int>(vector.size()),
                                     static_cast<off_t>(offset));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return last_error();
      offset += static_cast<std::uint64_t>(written);
      gather.advance(static_cast<std::size_t>(written));
    }
    return success();
  }

  Result<void> read(std::uint64_t offset, Mutable_bytes to) override {
    return read_fully(fd_.get(), offset, to, 0);
  }

  Result<void> read_cached(std::uint64_t offset, Mutable_bytes to) override {
    auto result = read_fully(fd_.get(), offset, to, in_memory_ ? 0 : RWF_NOWAIT);
    if (!result && (result.error() == std::errc::resource_unavailable_try_again ||
                    result.error() == std::errc::operation_not_supported))
      return Errc::would_block;
    return result;
  }

  void read_async(std::uint64_t offset, Mutable_bytes to, Disk_completion done) override {
    run([fd = fd_.get(), offset, to] { return read_fully(fd, offset, to, 0); }, std::move(done));
  }

  void sync_async(Disk_completion done) override {
    run([fd = fd_.get()] { return sync_fd(fd); }, std::move(done));
  }

  Result<void> sync() override { return sync_fd(fd_.get()); }

  Result<void> punch_hole(std::uint64_t offset, std::uint64_t length) override {
    PS_ASSERT(offset % block_bytes == 0 && length % block_bytes == 0);
    if (length == 0) return success();
    int const result = ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                   static_cast<off_t>(offset), static_cast<off_t>(length));
    if (result == 0) return success();
    if (errno == EOPNOTSUPP) return write_zeros(offset, length);
    return last_error();
  }

  Result<void> truncate(std::uint64_t size) override {
    if (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) return last_error();
    return success();
  }

  Result<std::uint64_t> size() override {
    struct stat status {};
    if (::fstat(fd_.get(), &status) != 0) return last_error();
    return static_cast<std::uint64_t>(status.st_size);
  }

  Result<std::uint64_t> allocated_bytes() override {
    struct stat status {};
    if (::fstat(fd_.get(), &status) != 0) return last_error();
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
  }

 private:
  static Result<void> sync_fd(int fd) {
    if (::fdatasync(fd) != 0) return last_error();
    return success();
  }

  Result<void> write_zeros(std::uint64_t offset, std::uint64_t length) {
    static constexpr std::array<std::byte, 64u << 10> zeros{};
    // What lies past the end reads as zeros already, and the size must not change.
    PS_TRY(auto const end, size());
    length = offset >= end ? 0 : std::min(length, end - offset);
    while (length > 0) {
      auto const take = std::min<std::uint64_t>(length, zeros.size());
      PS_CHECK(write(offset, Bytes(zeros.data(), static_cast<std::size_t>(take))));
      offset += take;
      length -= take;
    }
    return success();
  }

  template <typename Operation>
  void run(Operation operation, Disk_completion done) {
    {
      std::lock_guard const lock(pending_->mutex);
      ++pending_->on_helpers;
    }
    pool_.run([operation, done = std::move(done), pending = pending_, post = post_]() mutable {
      Result<void> const result = operation();
      post([result, done = std::move(done), pending] {
        if (!pending->file_gone) done(result);
      });
      // Under the lock: the file's destructor may end as soon as it sees zero.
      std::lock_guard const lock(pending->mutex);
      --pending->on_helpers;
      pending->changed.notify_all();
    });
  }

  File_descriptor fd_;
  std::size_t piece_;
  bool in_memory_;  // tmpfs: reads never wait, and some kernels refuse RWF_NOWAIT there
  Io_pool& pool_;
  Post post_;
  std::shared_ptr<Pending> pending_ = std::make_shared<Pending>();
};

}  // namespace

Result<std::unique_ptr<File>> open_posix_file(File_descriptor fd, bool random, Io_pool& pool,
                                              Post post) {
  struct statfs status {};
  if (::fstatfs(fd.get(), &status) != 0) return last_error();
  auto const kind = static_cast<unsigned long>(status.f_type);
  bool const small_pieces = random && kind == EXT4_SUPER_MAGIC;
  // Only advice: a file system that does not take it still works.
  if (small_pieces) static_cast<void>(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_RANDOM));
  auto const piece = small_pieces ? ext4_piece_bytes : std::numeric_limits<std::size_t>::max();
  std::unique_ptr<File> file = std::make_unique<Posix_file>(
      std::move(fd), piece, kind == TMPFS_MAGIC, pool, std::move(post));
  return file;
}

}  // namespace pstorage
