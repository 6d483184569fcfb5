#include "core/errc.h"

namespace pstorage {
namespace {

class Category final : public std::error_category {
 public:
  char const* name() const noexcept override { return "pstorage"; }
  std::string message(int value) const override { return message_of(static_cast<Errc>(value)); }
};

}  // namespace

std::error_category const& pstorage_category() {
  static Category const category;
  return category;
}

Errc errc_of(std::error_code const& code) {
  if (!code) return Errc::ok;
  if (code.category() == pstorage_category()) return static_cast<Errc>(code.value());
  if (code == std::errc::no_space_on_device || code.value() == EDQUOT) return Errc::no_space;
  if (code == std::errc::read_only_file_system) return Errc::read_only;
  if (code == std::errc::no_such_file_or_directory) return Errc::not_found;
  return Errc::io_error;
}

char const* message_of(Errc code) {
  switch (code) {
    case Errc::ok:
      return "ok";
    case Errc::stale_epoch:
      return "stale epoch: a newer writer has taken over";
    case Errc::stale_version:
      return "stale version: the replica set has changed";
    case Errc::not_open:
      return "the chunk is not open here";
    case Errc::corrupt:
      return "checksum mismatch";
    case Errc::no_space:
      return "no space left";
    case Errc::read_only:
      return "the repository is read-only after a disk error";
    case Errc::io_error:
      return "disk error";
    case Errc::bad_request:
      return "malformed request";
    case Errc::not_found:
      return "not found";
    case Errc::exists:
      return "already exists";
    case Errc::busy:
      return "in use by another client";
    case Errc::not_leader:
      return "not the master";
    case Errc::unavailable:
      return "not reachable now";
    case Errc::timed_out:
      return "timed out";
    case Errc::lost_writes:
      return "unflushed writes were lost on every replica";
    case Errc::session_expired:
      return "the session has expired";
    case Errc::no_placement:
      return "not enough chunk servers in distinct failure domains";
    case Errc::not_empty:
      return "the directory is not empty";
    case Errc::not_directory:
      return "not a directory";
    case Errc::is_directory:
      return "is a directory";
    case Errc::wrong_cluster:
      return "the peer belongs to another cluster";
    case Errc::wrong_version:
      return "the peer speaks another protocol version";
    case Errc::wrong_key:
      return "authentication failed: wrong password";
    case Errc::refused:
      return "refused";
    case Errc::too_large:
      return "too large";
    case Errc::closed:
      return "shutting down";
    case Errc::would_block:
      return "would block";
    case Errc::dropped:
      return "the chunk server has been removed from the cluster";
  }
  return "unknown error";
}

}  // namespace pstorage
