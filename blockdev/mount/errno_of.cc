#include "blockdev/mount/errno_of.h"

#include <errno.h>

#include "core/errc.h"

namespace pstorage::mount {

int errno_of(std::error_code const& code) {
  switch (errc_of(code)) {
    case Errc::ok:
      return 0;
    case Errc::not_found:
      return ENOENT;
    case Errc::exists:
      return EEXIST;
    case Errc::busy:
      return EBUSY;
    case Errc::not_empty:
      return ENOTEMPTY;
    case Errc::not_directory:
      return ENOTDIR;
    case Errc::is_directory:
      return EISDIR;
    case Errc::bad_request:
    case Errc::refused:
      return EINVAL;
    case Errc::no_space:
    case Errc::no_placement:
      return ENOSPC;
    case Errc::too_large:
      return EFBIG;
    case Errc::read_only:
      return EROFS;
    case Errc::stale_epoch:
    case Errc::session_expired:
      return ESTALE;
    case Errc::unavailable:
    case Errc::timed_out:
      return ETIMEDOUT;
    default:
      return EIO;
  }
}

}  // namespace pstorage::mount
