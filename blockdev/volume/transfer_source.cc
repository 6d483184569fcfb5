#include "blockdev/volume/transfer_source.h"

#include <fcntl.h>
#include <libnbd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/disk/file_descriptor.h"

namespace pstorage::volume {
namespace {

class Raw_file final : public Transfer_source {
 public:
  Raw_file(std::string path, File_descriptor file)
      : path_(std::move(path)), file_(std::move(file)) {}

  Outcome<std::optional<std::uint64_t>> next_data(std::uint64_t at) override {
    auto const data = ::lseek(file_.get(), static_cast<off_t>(at), SEEK_DATA);
    if (data >= 0) return std::optional(static_cast<std::uint64_t>(data));
    if (errno != ENXIO) return unreadable();
    return std::optional<std::uint64_t>();
  }

  Outcome<void> read(std::uint64_t at, Slice& piece) override {
    auto const got = ::pread(file_.get(), piece.data(), piece.size(), static_cast<off_t>(at));
    if (got == static_cast<ssize_t>(piece.size())) return success();
    if (got >= 0) return failure(Errc::io_error, path_ + " has become shorter");
    return unreadable();
  }

 private:
  Failure unreadable() const {
    std::error_code const code(errno, std::generic_category());
    return failure(code, "cannot read " + path_ + ": " + code.message());
  }

  std::string path_;
  File_descriptor file_;
};

class Nbd_export final : public Transfer_source {
 public:
  using Handle = std::unique_ptr<nbd_handle, decltype(&nbd_close)>;

  Nbd_export(Handle handle, std::uint64_t size_bytes)
      : handle_(std::move(handle)), size_bytes_(size_bytes) {}

  static Failure failed(std::string const& what) {
    return failure(Errc::io_error, what + ": " + nbd_get_error());
  }

  Outcome<std::optional<std::uint64_t>> next_data(std::uint64_t at) override {
    if (nbd_can_meta_context(handle_.get(), LIBNBD_CONTEXT_BASE_ALLOCATION) != 1)
      return std::optional(at);
    while (at < size_bytes_) {
      extent_ = {};
      nbd_extent_callback callback{};
      callback.callback = &Nbd_export::on_extents;
      callback.user_data = &extent_;
      auto const length = std::min<std::uint64_t>(size_bytes_ - at, 1u << 30);
      if (nbd_block_status(handle_.get(), length, at, callback, 0) != 0)
        return failed("cannot ask the NBD server what is allocated");
      if (extent_.length == 0) return failure(Errc::io_error, "the NBD server describes nothing");
      if (!extent_.is_zero) return std::optional(at);
      at += extent_.length;
    }
    return std::optional<std::uint64_t>();
  }

  Outcome<void> read(std::uint64_t at, Slice& piece) override {
    if (nbd_pread(handle_.get(), piece.data(), piece.size(), at, 0) == 0) return success();
    return failed("cannot read from the NBD server");
  }

 private:
  struct Extent {
    std::uint64_t length = 0;
    bool is_zero = false;
  };

  /// The first extent says all that is wanted.
  static int on_extents(void* extent, char const*, std::uint64_t, std::uint32_t* entries,
                        std::size_t count, int*) {
    if (count < 2) return 0;
    *static_cast<Extent*>(extent) = {entries[0], (entries[1] & LIBNBD_STATE_ZERO) != 0};
    return 0;
  }

  Handle handle_;
  std::uint64_t size_bytes_;
  Extent extent_;
};

}  // namespace

Outcome<std::unique_ptr<Transfer_source>> open_raw_file(std::string const& path) {
  File_descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) {
    std::error_code const code(errno, std::generic_category());
    return failure(code, "cannot read " + path + ": " + code.message());
  }
  return std::unique_ptr<Transfer_source>(std::make_unique<Raw_file>(path, std::move(file)));
}

Outcome<std::unique_ptr<Transfer_source>> open_nbd(std::string const& uri,
                                                   std::uint64_t size_bytes) {
  Nbd_export::Handle handle(nbd_create(), nbd_close);
  if (!handle) return Nbd_export::failed("no NBD connection can be made");
  if (nbd_add_meta_context(handle.get(), LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 ||
      nbd_set_uri_allow_local_file(handle.get(), true) != 0 ||
      nbd_connect_uri(handle.get(), uri.c_str()) != 0)
    return Nbd_export::failed("cannot connect to " + uri);
  return std::unique_ptr<Transfer_source>(
      std::make_unique<Nbd_export>(std::move(handle), size_bytes));
}

}  // namespace pstorage::volume
